use super::*;
use crate::telemetry::metrics::Metrics;

fn settings(directory: &Path) -> config::Spool {
    config::Spool {
        directory: directory.into(),
        memory: 2 * STEP,
        max_body: 10 * STEP as u64,
        total_memory: 5 * STEP,
        total_files: 12 * STEP as u64,
        client_share: 1.0,
    }
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn on_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
}

/// Pushes until memory is full.
fn fill(store: &mut Store, byte: u8) -> usize {
    let mut pushed = 0;
    loop {
        let room = store.room();
        if room == 0 {
            return pushed;
        }
        store.push(&vec![byte; room]);
        pushed += room;
    }
}

async fn content(store: &Store) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    while (all.len() as u64) < store.in_file() {
        piece = store.read(all.len() as u64, piece).await.unwrap();
        all.extend_from_slice(&piece);
    }
    all.extend_from_slice(store.in_memory());
    all
}

#[test]
fn what_is_pushed_comes_back_and_leaves_nothing() {
    on_runtime(async {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let spool = Spool::new(metrics.spool.clone());
        let mut store = Store::new(&spool, &settings(dir.path()), CLIENT);
        assert!(store.is_empty());
        let mut expected = Vec::new();
        for byte in 0..4 {
            let pushed = fill(&mut store, byte);
            assert_eq!(pushed, 2 * STEP);
            expected.extend(vec![byte; pushed]);
            store.save().await.unwrap();
        }
        assert!(store.room() > 0);
        store.push(b"end");
        expected.extend(b"end");
        assert_eq!((store.len(), store.in_file()), (expected.len() as u64, 8 * STEP as u64));
        assert!(content(&store).await == expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        let bytes = || metrics.spool.bytes.each_ref().map(|gauge| gauge.get());
        assert_eq!(bytes(), [2 * STEP as i64, 8 * STEP as i64]);
        assert_eq!(metrics.spool.bodies.get(), 1);
        drop(store);
        assert_eq!((bytes(), metrics.spool.bodies.get()), ([0, 0], 0));
    });
}

#[test]
fn each_bound_holds_and_nothing_kept_is_lost() {
    on_runtime(async {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let (spool, settings) = (Spool::new(metrics.spool.clone()), settings(dir.path()));
        let mut first = Store::new(&spool, &settings, CLIENT);
        for _ in 0..5 {
            fill(&mut first, 1);
            first.save().await.unwrap();
        }
        fill(&mut first, 2);
        let refused = first.save().await.unwrap_err();
        assert_eq!(refused.kind, SpoolRefusal::TooLarge);
        let mut second = Store::new(&spool, &settings, CLIENT);
        fill(&mut second, 3);
        second.save().await.unwrap();
        fill(&mut second, 3);
        // The files are full.
        assert_eq!(second.save().await.unwrap_err().kind, SpoolRefusal::Full);
        // One step of memory is left: it must do, and then there is none.
        let mut third = Store::new(&spool, &settings, CLIENT);
        assert_eq!(fill(&mut third, 4), STEP);
        let mut fourth = Store::new(&spool, &settings, CLIENT);
        assert_eq!(fourth.room(), 0);
        assert_eq!(fourth.save().await.unwrap_err().kind, SpoolRefusal::Full);
        assert!(!fourth.take_memory(1));
        assert_eq!(content(&second).await, vec![3; 4 * STEP]);
        assert_eq!(first.len(), 12 * STEP as u64);
        drop(first);
        second.save().await.unwrap();
        assert!(fourth.room() > 0, "what leaves makes room");
    });
}

#[test]
fn a_directory_that_cannot_be_written_is_told_of() {
    on_runtime(async {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let spool = Spool::new(metrics.spool.clone());
        let mut store = Store::new(&spool, &settings(&dir.path().join("none")), CLIENT);
        fill(&mut store, 1);
        let refused = store.save().await.unwrap_err();
        assert_eq!(refused.kind, SpoolRefusal::Error);
        assert!(refused.what.contains("/none cannot be written: "), "{}", refused.what);
        assert_eq!((store.len(), store.in_file()), (2 * STEP as u64, 0));
        assert_eq!(metrics.spool.bytes[1].get(), 0);
        (0..3).for_each(|_| spool.refused(&refused));
        assert_eq!(metrics.spool.refused[SpoolRefusal::Error as usize].get(), 3);
    });
}

#[test]
fn one_client_fills_no_more_than_its_share() {
    on_runtime(async {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let spool = Spool::new(metrics.spool.clone());
        let settings = config::Spool { client_share: 0.5, ..settings(dir.path()) };
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let mut first = Store::new(&spool, &settings, CLIENT);
        // Two steps of five in memory are one body's; half of twelve may go into files.
        for _ in 0..3 {
            assert_eq!(fill(&mut first, b'a'), 2 * STEP);
            first.save().await.unwrap();
        }
        fill(&mut first, b'a');
        assert_eq!(first.save().await.unwrap_err().kind, SpoolRefusal::ClientShare);
        let mut second = Store::new(&spool, &settings, CLIENT);
        assert_eq!(second.room(), 0, "its other bodies have no memory either");
        assert_eq!(second.no_memory().kind, SpoolRefusal::ClientShare);
        let mut third = Store::new(&spool, &settings, other);
        for _ in 0..3 {
            assert_eq!(fill(&mut third, b'b'), 2 * STEP, "others have theirs");
            third.save().await.unwrap();
        }
        drop(first);
        assert!(second.room() > 0);
        drop((second, third));
        assert_eq!(spool.clients.each_ref().map(|clients| clients.count()), [0, 0]);
        assert_eq!(metrics.spool.bytes.each_ref().map(|bytes| bytes.get()), [0, 0]);
    });
}
