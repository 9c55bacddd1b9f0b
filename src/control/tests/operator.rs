//! What operators ask of nodes, and what becomes of it over reloads and restarts.

use super::super::operator::Verb;
use super::*;

const NODES: [&str; 3] = ["127.0.0.1:9", "127.0.0.1:19", "127.0.0.1:29"];

fn to(verb: Verb, node: &str) -> Order {
    let from = [10, 0, 0, 7].into();
    Order { verb, node: node.into(), upstream: None, window: None, force: false, from }
}

impl Rig {
    async fn order(&self, order: Order) -> Result<Ordered, OrderError> {
        self.handle.order(order).await.unwrap()
    }

    async fn drain(&self, node: &str) -> Result<Ordered, OrderError> {
        self.order(to(Verb::Drain, node)).await
    }

    fn told(&self) -> Vec<(String, Duration)> {
        self.threads.nodes_drained.lock().clone()
    }

    async fn states(&self) -> Vec<String> {
        let status = self.handle.status().await.unwrap();
        let nodes = status.upstreams.into_iter().flat_map(|upstream| upstream.nodes);
        nodes.map(|node| node.state).collect()
    }

    fn counted(&self, node: &str, to: &str) -> u64 {
        let labels = ["app", node, to, "operator"];
        self.handle.metrics().state_changes.with_label_values(&labels).get()
    }
}

/// A file with these entries of `nodes`; `DIR` in `server` is the file's directory.
struct File {
    dir: tempfile::TempDir,
    server: &'static str,
}

impl File {
    fn write(&self, nodes: &str) -> PathBuf {
        let server = self.server.replace("DIR", self.dir.path().to_str().unwrap());
        let text = format!(
            "[server]\nthreads = 2\n{server}\n[[listener]]\nname = \"public\"\n\
             bind = \"127.0.0.1:0\"\n[upstream.app]\npreset = \"none\"\nnodes = [{nodes}]\n\
             [access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n"
        );
        let path = self.dir.path().join("c.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, nodes: &str) -> Rig {
        let path = self.write(nodes);
        let config = read(&path).unwrap().found.unwrap().0;
        Rig::start(config, ConfigSource::File(path))
    }

    async fn reload(&self, rig: &Rig, nodes: &str) {
        self.write(nodes);
        assert_eq!(rig.handle.reload().await.unwrap().result, ReloadResult::Ok, "{nodes}");
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state.json")
    }
}

fn file(server: &'static str) -> File {
    File { dir: tempfile::tempdir().unwrap(), server }
}

const TWO: &str = "\"127.0.0.1:9\", \"127.0.0.1:19\"";
const KEPT: &str = "state_file = \"DIR/state.json\"";

#[tokio::test]
async fn a_drained_node_is_out_on_all_threads_when_the_answer_comes() {
    let rig = Rig::flags(unchecked(&NODES));
    let ordered = rig.drain(NODES[0]).await.unwrap();
    assert!(!rig.live(NODES[0]).eligible(true));
    assert_eq!((ordered.nodes.len(), ordered.nodes[0].state.as_str()), (1, "draining"));
    assert!(!ordered.survives_restart, "there is no state file");
    let each = (NODES[0].to_owned(), Duration::from_secs(60));
    assert_eq!(rig.told(), [each.clone(), each.clone()]);
    let node = rig.node(NODES[0]).await;
    assert_eq!(node.cause, "drained by the operator, from 10.0.0.7");
    assert_eq!((node.operator.as_str(), rig.counted(NODES[0], "draining")), ("draining", 1));
    // Again: nothing changes, unless there is another window.
    assert_eq!(rig.drain(NODES[0]).await.unwrap(), ordered);
    assert_eq!((rig.told().len(), rig.counted(NODES[0], "draining")), (2, 1));
    let window = Duration::from_secs(5);
    let sooner = Order { window: Some(window), ..to(Verb::Drain, NODES[0]) };
    rig.order(sooner).await.unwrap();
    assert_eq!(rig.told()[2..], [(each.0.clone(), window), (each.0, window)]);
    let ordered = rig.order(to(Verb::Ready, NODES[0])).await.unwrap();
    assert_eq!(ordered.nodes[0].state, "up");
    assert!(rig.live(NODES[0]).eligible(false));
    let node = rig.node(NODES[0]).await;
    assert_eq!(node.cause, "made ready by the operator, from 10.0.0.7");
    assert_eq!(rig.order(to(Verb::Ready, NODES[0])).await.unwrap(), ordered, "twice is once");
}

#[tokio::test]
async fn the_last_node_that_serves_is_drained_only_by_force() {
    let rig = Rig::flags(unchecked(&NODES[..2]));
    rig.drain(NODES[0]).await.unwrap();
    let error = rig.drain(NODES[1]).await.unwrap_err();
    let last = OrderError::Last { node: NODES[1].into(), upstream: "app".into() };
    assert_eq!(error, last);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(rig.states().await, ["draining", "up"]);
    assert!(rig.drain(NODES[0]).await.is_ok(), "one that is out already");
    rig.order(Order { force: true, ..to(Verb::Drain, NODES[1]) }).await.unwrap();
    assert_eq!(rig.states().await, ["draining", "draining"]);
}

#[tokio::test]
async fn a_node_that_does_not_serve_may_go_whoever_is_left() {
    let origin = Origin::start(Behaviour::Ok).await;
    let up = text(origin.address());
    let rig = Rig::flags(config(&[&up, NODES[0]]));
    rig.until_state(NODES[0], "down").await;
    rig.until_state(&up, "up").await;
    rig.drain(NODES[0]).await.unwrap();
    assert!(matches!(rig.drain(&up).await, Err(OrderError::Last { .. })));
    rig.order(to(Verb::Ready, NODES[0])).await.unwrap();
    assert!(!rig.live(NODES[0]).eligible(true), "its health still counts");
    assert!(matches!(rig.drain(&up).await, Err(OrderError::Last { .. })));
}

#[tokio::test]
async fn a_node_that_is_ready_works_after_one_good_probe_of_its_own() {
    let (origin, other) = (Origin::start(Behaviour::Ok).await, Origin::start(Behaviour::Ok).await);
    let (name, other) = (text(origin.address()), text(other.address()));
    let mut config = config(&[&name, &other]);
    // What was found before stays until somebody asks for a probe.
    let check = config.upstreams[0].health_check.as_mut().unwrap();
    check.interval = Duration::from_secs(3600);
    let rig = Rig::flags(config);
    rig.until_state(&name, "up").await;
    rig.until_state(&other, "up").await;
    rig.drain(&name).await.unwrap();
    let asked = origin.asked();
    rig.order(to(Verb::Ready, &name)).await.unwrap();
    rig.until_state(&name, "up").await;
    assert_eq!(origin.asked(), asked + 1);
    // The process before was up; the one that was started instead is not.
    rig.drain(&name).await.unwrap();
    origin.behave(Behaviour::commanding());
    rig.order(to(Verb::Ready, &name)).await.unwrap();
    let refused = rig.drain(&other).await;
    assert!(matches!(refused, Err(OrderError::Last { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_unknown_name_is_told_with_those_that_are_known() {
    let rig = Rig::flags(unchecked(&["127.0.0.1:9", "[::1]:13000"]));
    let error = rig.drain("127.0.0.1:8").await.unwrap_err().to_string();
    let expected = "there is no node `127.0.0.1:8`, did you mean `127.0.0.1:9`?; known: \
                    127.0.0.1:9, [::1]:13000";
    assert_eq!(error, expected);
    let error = rig.drain("somebody-else").await.unwrap_err().to_string();
    assert!(error.starts_with("there is no node `somebody-else`; known: "), "{error}");
    let order = Order { upstream: Some("ap".into()), ..to(Verb::Ready, "127.0.0.1:9") };
    let error = rig.order(order).await.unwrap_err().to_string();
    assert_eq!(error, "there is no upstream `ap`, did you mean `app`?; known: app");
}

#[tokio::test]
async fn one_process_in_two_upstreams_is_one_node_and_two_processes_are_not() {
    let text = "[server]\nthreads = 2\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
        [access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
        [[route]]\npath = \"/a/*\"\nupstream = \"a\"\n[[route]]\nupstream = \"b\"\n\
        [upstream.a]\npreset = \"none\"\nnodes = [\"127.0.0.1:9\", \"127.0.0.1:19\", \
        { name = \"n\", address = \"127.0.0.1:29\" }]\n\
        [upstream.b]\npreset = \"none\"\nnodes = [\"127.0.0.1:9\", \"127.0.0.1:19\", \
        { name = \"n\", address = \"127.0.0.1:39\" }]\n";
    let rig = Rig::flags(support::parse(text));
    let ordered = rig.drain("127.0.0.1:9").await.unwrap();
    let upstreams: Vec<&str> = ordered.nodes.iter().map(|node| node.upstream.as_str()).collect();
    assert_eq!(upstreams, ["a", "b"]);
    let error = rig.drain("n").await.unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("`b`") && error.contains("--upstream"));
    let order = Order { upstream: Some("b".into()), ..to(Verb::Drain, "n") };
    assert_eq!(rig.order(order).await.unwrap().nodes.len(), 1);
    let by_address = rig.drain("127.0.0.1:29").await.unwrap();
    assert_eq!(by_address.nodes[0].name, "n", "an address will do");
    let drained = ["draining", "up", "draining"];
    assert_eq!(rig.states().await, [drained, drained].concat());
}

#[tokio::test]
async fn a_drained_node_stays_so_over_reloads_until_it_leaves_the_configuration() {
    let file = file("");
    let rig = file.start(TWO);
    rig.drain(NODES[0]).await.unwrap();
    let heavier = "{ address = \"127.0.0.1:9\", weight = 2 }, \"127.0.0.1:19\"";
    file.reload(&rig, heavier).await;
    assert_eq!(rig.states().await, ["draining", "up"]);
    file.reload(&rig, "\"127.0.0.1:19\"").await;
    file.reload(&rig, TWO).await;
    assert_eq!(rig.states().await, ["up", "up"]);
}

#[tokio::test]
async fn the_configuration_s_disabled_comes_before_drained() {
    let file = file("");
    let rig = file.start(TWO);
    file.reload(&rig, "{ address = \"127.0.0.1:9\", disabled = true }, \"127.0.0.1:19\"").await;
    assert_eq!(rig.states().await, ["disabled", "up"]);
    let told = || async { (rig.told().len() == 2).then_some(()) };
    until("a node that is disabled is drained on both threads", told).await;
    assert_eq!(rig.drain(NODES[0]).await.unwrap().nodes[0].state, "disabled");
    file.reload(&rig, TWO).await;
    assert_eq!(rig.states().await, ["draining", "up"]);
    file.reload(&rig, "{ address = \"127.0.0.1:9\", disabled = true }, \"127.0.0.1:19\"").await;
    let ordered = rig.order(to(Verb::Ready, NODES[0])).await.unwrap();
    assert_eq!(ordered.nodes[0].state, "disabled");
    file.reload(&rig, TWO).await;
    assert_eq!(rig.states().await, ["up", "up"]);
}

#[tokio::test]
async fn a_restart_finds_it_in_the_state_file() {
    let file = file(KEPT);
    let rig = file.start(TWO);
    assert!(rig.drain(NODES[0]).await.unwrap().survives_restart);
    drop(rig);
    let rig = file.start(TWO);
    assert_eq!(rig.states().await, ["draining", "up"]);
    assert!(!rig.live(NODES[0]).eligible(true));
    let node = rig.node(NODES[0]).await;
    assert_eq!(node.cause, "drained by the operator, from 10.0.0.7");
    assert!(rig.order(to(Verb::Ready, NODES[0])).await.unwrap().survives_restart);
    drop(rig);
    let rig = file.start(TWO);
    assert_eq!(rig.states().await, ["up", "up"]);
    rig.drain(NODES[1]).await.unwrap();
    drop(rig);
    // It is gone while nobody looks, and comes back: that is another node.
    drop(file.start("\"127.0.0.1:9\""));
    let forgotten =
        || async { (!fs::read_to_string(file.state()).unwrap().contains("19")).then_some(()) };
    until("it is forgotten", forgotten).await;
    assert_eq!(file.start(TWO).states().await, ["up", "up"]);
}

#[tokio::test]
async fn a_reload_that_names_a_state_file_keeps_what_is_drained_already() {
    let mut file = file("");
    let rig = file.start(TWO);
    rig.drain(NODES[0]).await.unwrap();
    file.server = KEPT;
    file.reload(&rig, TWO).await;
    let kept = || async { fs::read_to_string(file.state()).ok() };
    assert!(until("it is written", kept).await.contains(NODES[0]));
    // A place that was in use before holds what was true then.
    let now = file.state().with_file_name("other.json");
    fs::copy(file.state(), &now).unwrap();
    rig.order(to(Verb::Ready, NODES[0])).await.unwrap();
    file.server = "state_file = \"DIR/other.json\"";
    file.reload(&rig, TWO).await;
    let replaced =
        || async { (!fs::read_to_string(&now).unwrap().contains(NODES[0])).then_some(()) };
    until("it is replaced", replaced).await;
}

#[tokio::test]
async fn a_state_file_that_is_of_no_use_is_told_and_gone_without() {
    let file = file(KEPT);
    fs::write(file.state(), "{\"version\":7}").unwrap();
    let rig = file.start(TWO);
    assert_eq!(rig.states().await, ["up", "up"]);
    let warning = rig.warnings(Kind::Degraded).await.pop().unwrap();
    assert!(warning.contains("state.json") && warning.contains("of version 7"), "{warning}");
    assert_eq!(fs::read_to_string(file.state()).unwrap(), "{\"version\":7}", "it is left alone");
    assert!(rig.drain(NODES[0]).await.unwrap().survives_restart, "and replaced");
    let settled = || async { rig.warnings(Kind::Degraded).await.is_empty().then_some(()) };
    until("no warning", settled).await;
}

#[tokio::test]
async fn what_is_handed_over_and_cannot_be_held_is_not_taken_over() {
    let take = |state: &str| {
        let estate = Some(Estate::with_state(state));
        start_with(config(&NODES), ConfigSource::Flags, None, Metrics::new(), estate)
    };
    let pinned = |node: &str| {
        format!(
            r#"{{"version": 1, "drained": [], "pinned": [{{"upstream": "app", "node": "{node}",
            "address": null, "from": "10.0.0.7", "since": 0}}]}}"#
        )
    };
    for (state, expected) in [
        ("nonsense", "what operators have said cannot be understood"),
        (r#"{"version": 9}"#, "it is of version 9"),
        (&*pinned("gone"), "then `cobalance upgrade`"),
    ] {
        let error = take(state).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let rig = Rig::of(take(&pinned(NODES[1])).unwrap());
    assert!(rig.handle.status().await.unwrap().upstreams[0].pinned.is_some());
}

#[tokio::test]
async fn a_state_file_that_cannot_be_written_is_told_and_the_node_is_drained_all_the_same() {
    let file = file("state_file = \"DIR/missing/state.json\"");
    let rig = file.start(TWO);
    let ordered = rig.drain(NODES[0]).await.unwrap();
    assert_eq!((ordered.survives_restart, ordered.nodes[0].state.as_str()), (false, "draining"));
    let told = || async { rig.warnings(Kind::Degraded).await.pop() };
    assert!(until("a warning", told).await.contains("cannot be written"));
}

/// An origin whose answers wait for the test, and the number of the connection on which each was asked.
async fn by_hand() -> (SocketAddr, mpsc::UnboundedReceiver<(usize, oneshot::Sender<()>)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (tell, asked)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                while support::read_head(&mut stream).await.is_some() {
                    let (answer, may) = oneshot::channel();
                    let _ = tell.send((number, answer));
                    if may.await.is_err() || !support::answer(&mut stream, Behaviour::Ok).await {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn what_an_earlier_process_answers_does_not_make_a_node_ready() {
    let (address, mut asked) = by_hand().await;
    let name = text(address);
    let mut config = config(&[&name]);
    let check = config.upstreams[0].health_check.as_mut().unwrap();
    (check.rise, check.interval) = (1, Duration::from_secs(3600));
    check.timeout = Duration::from_secs(20);
    let rig = Rig::flags(config);
    let (first, answer) = asked.recv().await.unwrap();
    answer.send(()).unwrap();
    rig.until_state(&name, "up").await;
    rig.order(Order { force: true, ..to(Verb::Drain, &name) }).await.unwrap();
    rig.signal(Signal::ProbeNow(rig.live(&name))).await;
    let (second, old) = asked.recv().await.unwrap();
    assert_eq!(first, second, "a good connection is kept");
    let handle = rig.handle.clone();
    let (order, ready) = (to(Verb::Ready, &name), rig.live(&name));
    tokio::spawn(async move { handle.order(order).await });
    let is_ready = || async { (ready.operator() == OperatorState::Ready).then_some(()) };
    until("it is ready", is_ready).await;
    old.send(()).unwrap();
    let (third, new) = asked.recv().await.unwrap();
    assert_eq!(rig.node(&name).await.state, "unchecked", "that was the process before");
    assert_ne!(second, third, "whose connection is used no more");
    new.send(()).unwrap();
    rig.until_state(&name, "up").await;
}

#[tokio::test]
async fn a_node_that_was_drained_before_the_start_starts_slowly_when_it_is_ready() {
    let (warm, cold) = (Origin::start(Behaviour::Ok).await, Origin::start(Behaviour::Ok).await);
    let (warm, cold) = (text(warm.address()), text(cold.address()));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[&warm, &cold]);
    config.server.state_file = Some(dir.path().join("state.json"));
    let rig = Rig::flags(config.clone());
    rig.drain(&cold).await.unwrap();
    drop(rig);
    let rig = Rig::flags(config);
    rig.until_state(&warm, "up").await;
    assert_eq!(rig.node(&cold).await.state, "draining");
    rig.order(to(Verb::Ready, &cold)).await.unwrap();
    rig.until_state(&cold, "up").await;
    let weights = (rig.node(&warm).await.effective_weight, rig.node(&cold).await.effective_weight);
    assert!(weights.0 == 1.0 && weights.1 < 1.0, "{weights:?}");
}

#[tokio::test]
async fn one_address_of_a_name_that_is_gone_can_be_made_ready() {
    let name = "app.invalid:13000";
    let rig = Rig::flags(unchecked(&[name]));
    let resolved = |last: &[u8]| {
        let found = last.iter().map(|n| SocketAddr::from(([127, 0, 0, *n], 9))).collect();
        let answers = vec![(name.to_owned(), Ok(found))];
        assert!(rig.handle.inner.events.send(Event::Resolved(answers)).is_ok());
    };
    resolved(&[1, 2]);
    let gone = "app.invalid:13000#127.0.0.2";
    rig.drain(gone).await.unwrap();
    // An address goes when two answers lack it.
    resolved(&[1, 3]);
    resolved(&[1, 3]);
    let absent = || async {
        let status = rig.handle.status().await.unwrap();
        status.upstreams[0].drained_absent.first().map(|one| one.name.clone())
    };
    assert_eq!(rig.states().await, ["up", "up"]);
    assert_eq!(absent().await.as_deref(), Some(gone));
    let ordered = rig.order(to(Verb::Ready, gone)).await.unwrap();
    assert_eq!((ordered.nodes.len(), ordered.forgotten), (0, vec![gone.to_owned()]));
    assert_eq!(absent().await, None);
    let again = rig.order(to(Verb::Ready, gone)).await;
    assert!(matches!(again, Err(OrderError::Unknown(_))), "{again:?}");
}

#[tokio::test]
async fn a_process_that_has_handed_over_takes_no_orders() {
    let rig = Rig::flags(unchecked(&NODES));
    rig.drain(NODES[0]).await.unwrap();
    let ended = |done| Event::Upgrade(upgrade::Told::Ended(true, done));
    rig.handle.ask(ended).await.unwrap();
    for (verb, node) in [(Verb::Drain, 1), (Verb::Ready, 0), (Verb::Pin, 2)] {
        assert_eq!(rig.order(to(verb, NODES[node])).await, Err(OrderError::NotHere), "{verb:?}");
    }
    let unpin = Unpin { upstream: None, from: [10, 0, 0, 7].into() };
    assert_eq!(rig.handle.unpin(unpin).await.unwrap(), Err(OrderError::NotHere));
    let from = [10, 0, 0, 7].into();
    let change = maintenance::Change { upstream: None, on: Some(Default::default()), from };
    assert_eq!(rig.handle.maintain(change).await.unwrap(), Err(OrderError::NotHere));
    assert_eq!(rig.states().await, ["draining", "up", "up"]);
}

#[tokio::test]
async fn what_was_asked_of_a_node_holds_wherever_its_only_container_comes_back() {
    let name = "app.invalid:13000";
    let at = |last: u8| SocketAddr::from(([127, 0, 0, last], 9));
    for (verb, state) in [(Verb::Drain, "draining"), (Verb::Pin, "up")] {
        let rig = Rig::flags(unchecked(&[name, NODES[0]]));
        let resolved = |last: u8| {
            let answers = vec![(name.to_owned(), Ok(vec![at(last)]))];
            assert!(rig.handle.inner.events.send(Event::Resolved(answers)).is_ok());
        };
        let shown = || async {
            let status = rig.handle.status().await.unwrap();
            let nodes = status.upstreams.into_iter().flat_map(|upstream| upstream.nodes);
            nodes.map(|node| (node.name, node.address, node.state)).collect::<Vec<_>>()
        };
        // The old address is spared for one answer, so the new one is one of two when it comes.
        for last in [1, 2, 2] {
            resolved(last);
        }
        let (label, address, _) = shown().await.remove(0);
        assert_eq!((label.as_str(), address), ("app.invalid:13000#127.0.0.2", text(at(2))));
        rig.order(to(verb, &label)).await.unwrap();
        resolved(3);
        resolved(3);
        let (_, address, now) = shown().await.remove(0);
        assert_eq!((address, now.as_str()), (text(at(3)), state));
        let other = if verb == Verb::Pin { "draining" } else { "up" };
        assert_eq!(shown().await[1].2, other);
    }
}
