//! Files that change while control runs.

use std::os::unix::fs::symlink;

use super::*;

/// A file, and control that watches it.
struct Watched {
    rig: Rig,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

const LISTENER: &str = "[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n";

/// A file with this much more of listeners, and these nodes of a plain upstream.
fn file(listeners: &str, nodes: &str) -> String {
    format!(
        "{listeners}[upstream.app]\npreset = \"none\"\nnodes = [{nodes}]\n[server]\nthreads = 2\n\
         [access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n"
    )
}

fn watched(text: &str) -> Watched {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cobalance.toml");
    fs::write(&path, text).unwrap();
    Watched { rig: rig(&path), path, _dir: dir }
}

fn rig(path: &Path) -> Rig {
    let config = read(path).unwrap().found.unwrap().0;
    Rig::start(config, ConfigSource::File(path.to_owned()))
}

impl Watched {
    async fn reload(&self, text: &str) -> Outcome {
        fs::write(&self.path, text).unwrap();
        self.rig.handle.reload().await.unwrap()
    }

    fn sockets(&self) -> Vec<Vec<String>> {
        self.rig.threads.sockets.lock().clone()
    }
}

#[tokio::test]
async fn a_good_file_is_in_use_in_all_threads_when_the_reload_returns() {
    let one = file(LISTENER, "\"127.0.0.1:9\"");
    let file = watched(&one);
    let two = super::reload::file(LISTENER, "\"127.0.0.1:9\", \"127.0.0.1:19\"");
    let outcome = file.reload(&two).await;
    assert_eq!((outcome.result, outcome.generation), (ReloadResult::Ok, 2));
    assert_eq!(*file.rig.threads.renewed.lock(), [2, 2]);
    let status = file.rig.handle.status().await.unwrap();
    assert_eq!(status.upstreams[0].nodes.len(), 2);
    assert_eq!(status.config.last_reload, Some(outcome));
    assert_eq!(file.rig.handle.metrics().config_generation.get(), 2);
    let again = file.reload(&two).await;
    assert_eq!((again.result, again.generation), (ReloadResult::Unchanged, 2));
    assert_eq!(file.rig.threads.renewed.lock().len(), 2);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_where() {
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    let before = file.rig.handle.snapshot();
    let outcome = file.reload("[[listener]]\nbimd = \"127.0.0.1:0\"\n").await;
    assert_eq!((outcome.result, outcome.generation), (ReloadResult::Invalid, 1));
    let error = outcome.error.unwrap();
    assert!(error.contains("cobalance.toml:2:1") && error.contains("`bind`"), "{error}");
    assert!(Arc::ptr_eq(&before, &file.rig.handle.snapshot()));
    let reloads = &file.rig.handle.metrics().config_reloads;
    assert_eq!(reloads.with_label_values(&["invalid"]).get(), 1);
}

#[tokio::test]
async fn what_the_file_has_become_while_it_was_loaded_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cobalance.toml");
    let loaded = file(LISTENER, "\"127.0.0.1:9\"");
    fs::write(&path, &loaded).unwrap();
    let config = read(&path).unwrap().found.unwrap().0;
    fs::write(&path, file(LISTENER, "\"127.0.0.1:19\"")).unwrap();
    let source = ConfigSource::File(path);
    let control = start_with(config, source, Some(loaded), Metrics::new(), None).unwrap();
    let rig = Rig::of(control);
    let generation = || async { Some(rig.handle.snapshot().generation).filter(|one| *one == 2) };
    until("what it is now", generation).await;
}

#[tokio::test]
async fn a_lost_file_changes_nothing() {
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    fs::remove_file(&file.path).unwrap();
    let outcome = file.rig.handle.reload().await.unwrap();
    assert_eq!(outcome.result, ReloadResult::Invalid);
    assert!(outcome.error.unwrap().starts_with("the file cannot be read: "));
}

#[tokio::test]
async fn a_listener_that_cannot_bind_rejects_the_whole() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    let more = format!(
        "{LISTENER}[[listener]]\nname = \"other\"\nbind = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    let new = super::reload::file(&more, "\"127.0.0.1:9\", \"127.0.0.1:19\"");
    let outcome = file.reload(&new).await;
    assert_eq!(outcome.result, ReloadResult::Invalid);
    assert!(outcome.error.unwrap().starts_with("listener `other` cannot bind "));
    let status = file.rig.handle.status().await.unwrap();
    assert_eq!((status.listeners.len(), status.upstreams[0].nodes.len()), (1, 1));
    assert_eq!(file.sockets(), [["public"], ["public"]]);
    drop(taken);
    assert_eq!(file.reload(&new).await.result, ReloadResult::Ok);
}

#[tokio::test]
async fn listeners_come_and_go_and_keep_their_port_under_a_new_name() {
    let nodes = "\"127.0.0.1:9\"";
    let file = watched(&file(LISTENER, nodes));
    let public = file.rig.handle.addresses()[0].1.tcp().unwrap();
    let second = "[[listener]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    file.reload(&super::reload::file(&format!("{LISTENER}{second}"), nodes)).await;
    assert_eq!(file.sockets(), vec![vec!["public", "second"]; 2]);
    let addresses = file.rig.handle.addresses();
    assert_eq!(addresses[0].1.tcp(), Some(public), "a listener that stays is not bound anew");
    let added = addresses[1].1.tcp().unwrap();
    assert!(std::net::TcpStream::connect(added).is_ok());
    let renamed = format!("[[listener]]\nname = \"renamed\"\nbind = \"{added}\"\n");
    file.reload(&super::reload::file(&renamed, nodes)).await;
    assert_eq!(file.sockets(), [["renamed"], ["renamed"]]);
    assert!(std::net::TcpStream::connect(added).is_ok());
    assert!(std::net::TcpStream::connect(public).is_err(), "nobody holds it any more");
}

#[tokio::test]
async fn a_swapped_symlink_is_followed_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    for (name, nodes) in [("v1", "\"127.0.0.1:9\""), ("v2", "\"127.0.0.1:19\"")] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("c.toml"), file(LISTENER, nodes)).unwrap();
    }
    symlink("v1", dir.path().join("data")).unwrap();
    let rig = rig(&dir.path().join("data/c.toml"));
    symlink("v2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), dir.path().join("data")).unwrap();
    let second = || async { (rig.handle.snapshot().generation == 2).then_some(()) };
    until("the second generation", second).await;
    assert_eq!(rig.node("127.0.0.1:19").await.state, "up");
}

#[tokio::test]
async fn threads_cannot_change_and_say_so() {
    let text = file(LISTENER, "\"127.0.0.1:9\"");
    let file = watched(&text);
    let outcome = file.reload(&text.replace("threads = 2", "threads = 3")).await;
    assert_eq!((outcome.result, outcome.generation), (ReloadResult::Unchanged, 1));
    assert!(
        file.rig.warnings(Kind::NeedsRestart).await[0].contains("`threads` is now 3, and 2 run")
    );
    file.reload(&text).await;
    assert_eq!(file.rig.warnings(Kind::NeedsRestart).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_removed_node_drains_and_may_come_back() {
    let both = file(LISTENER, "\"127.0.0.1:9\", \"127.0.0.1:19\"");
    let file = watched(&both);
    let node = file.rig.live("127.0.0.1:19");
    file.rig.signal(Signal::Failing(node.clone(), FailureKind::Reset)).await;
    file.rig.until_state("127.0.0.1:19", "ejected").await;
    file.reload(&super::reload::file(LISTENER, "\"127.0.0.1:9\"")).await;
    assert!(!node.eligible(true));
    assert_eq!(file.rig.handle.leaving().len(), 1);
    file.reload(&both).await;
    assert!(Arc::ptr_eq(&node, &file.rig.live("127.0.0.1:19")), "its counters stay");
    assert!(node.eligible(true));
    assert_eq!(file.rig.handle.leaving().len(), 0);
}

#[tokio::test]
async fn a_node_that_stays_keeps_its_state_and_a_disabled_one_is_out() {
    let both = file(LISTENER, "\"127.0.0.1:9\", \"127.0.0.1:19\"");
    let file = watched(&both);
    let rig = &file.rig;
    rig.signal(Signal::Failing(rig.live("127.0.0.1:9"), FailureKind::Reset)).await;
    rig.until_state("127.0.0.1:9", "ejected").await;
    let disabled =
        "\"127.0.0.1:9\", { address = \"127.0.0.1:19\", disabled = true }, \"127.0.0.1:29\"";
    file.reload(&super::reload::file(LISTENER, disabled)).await;
    let state = |name| async move { rig.node(name).await.state };
    assert_eq!(state("127.0.0.1:9").await, "ejected");
    assert_eq!(state("127.0.0.1:19").await, "disabled");
    assert_eq!(state("127.0.0.1:29").await, "up");
}

#[tokio::test]
async fn nodes_that_are_added_or_enabled_start_slowly_and_a_reload_keeps_that() {
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    let rig = &file.rig;
    let weight = |name| async move { rig.node(name).await.effective_weight };
    assert_eq!(weight("127.0.0.1:9").await, 1.0);
    let with = |second: &str| super::reload::file(LISTENER, &format!("\"127.0.0.1:9\", {second}"));
    file.reload(&with("\"127.0.0.1:19\"")).await;
    assert_eq!(weight("127.0.0.1:19").await, 0.1);
    let since = file.rig.live("127.0.0.1:19").slow_since_ns();
    file.reload(&with("{ address = \"127.0.0.1:19\", weight = 2 }")).await;
    assert_eq!(file.rig.live("127.0.0.1:19").slow_since_ns(), since);
    let second = "{ address = \"127.0.0.1:19\", disabled = true }";
    file.reload(&with(second)).await;
    assert_eq!(file.rig.live("127.0.0.1:19").slow_since_ns(), 0);
    file.reload(&with("\"127.0.0.1:19\"")).await;
    assert_eq!(weight("127.0.0.1:19").await, 0.1);
    let off = with("\"127.0.0.1:19\"").replace("preset", "slow_start = \"0s\"\npreset");
    file.reload(&off).await;
    until("it is whole", || async { (weight("127.0.0.1:19").await == 1.0).then_some(()) }).await;
}

#[tokio::test]
async fn reloads_that_are_asked_for_at_once_are_all_answered() {
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    fs::write(&file.path, super::reload::file(LISTENER, "\"127.0.0.1:19\"")).unwrap();
    let handle = &file.rig.handle;
    let (one, two, three) = tokio::join!(handle.reload(), handle.reload(), handle.reload());
    assert_eq!(one.unwrap().result, ReloadResult::Ok);
    assert_eq!(two.unwrap().result, ReloadResult::Unchanged);
    assert_eq!(three.unwrap().result, ReloadResult::Unchanged);
}

#[tokio::test]
async fn there_is_no_reload_without_a_file_or_at_the_end() {
    let rig = Rig::flags(unchecked(&["127.0.0.1:9"]));
    let outcome = rig.handle.reload().await.unwrap();
    assert!(outcome.error.unwrap().contains("without a file"));
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    file.rig.handle.drain();
    let outcome = file.rig.handle.reload().await.unwrap();
    assert_eq!(outcome.error.as_deref(), Some("the process is ending"));
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_rejects_the_whole() {
    let text = file(LISTENER, "\"127.0.0.1:9\"");
    let file = watched(&text);
    let with =
        |path: &Path| text.replace("enabled = false", &format!("enabled = true\npath = {path:?}"));
    let bad = file.reload(&with(Path::new("/no/such/folder/a.log"))).await;
    assert!(bad.error.unwrap().contains("the access log `/no/such/folder/a.log`"));
    let path = file.path.with_file_name("a.log");
    assert_eq!(file.reload(&with(&path)).await.result, ReloadResult::Ok);
    assert!(path.exists() && file.rig.handle.snapshot().access_log.is_some());
}

#[tokio::test]
async fn a_removed_node_serves_until_every_thread_knows_that_it_is_gone() {
    let file = watched(&file(LISTENER, "\"127.0.0.1:9\""));
    let gone = file.rig.live("127.0.0.1:9");
    let (seen, node) = (Arc::new(parking_lot::Mutex::new(Vec::new())), gone.clone());
    let eligible = seen.clone();
    *file.rig.threads.at_renewal.lock() =
        Some(Box::new(move || eligible.lock().push(node.eligible(true))));
    // All are others: what began before could go nowhere else.
    let outcome = file.reload(&super::reload::file(LISTENER, "\"127.0.0.1:19\"")).await;
    assert_eq!(outcome.result, ReloadResult::Ok);
    assert_eq!(*seen.lock(), [true, true], "on both threads");
    assert!(!gone.eligible(true), "and afterwards it is out");
    let told = || async { (file.rig.threads.nodes_drained.lock().len() == 2).then_some(()) };
    until("its tunnels are moved", told).await;
    let told = file.rig.threads.nodes_drained.lock().clone();
    let expected = ("127.0.0.1:9".to_owned(), crate::exchange::tunnel::DRAIN_WINDOW);
    assert_eq!(told, [expected.clone(), expected]);
}
