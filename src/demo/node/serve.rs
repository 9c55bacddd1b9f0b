//! The life of a stand-in: its phases, its connections, its tunnels.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::answer::{self, Site};
use super::{Order, Pace, Phase, listen};
use crate::demo::ws;

/// Node's `keepAliveTimeout`.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long each of the last phases lasts. PM2 kills 1.6 s after its signal; all of them fit.
const LAST_PHASE: Duration = Duration::from_millis(300);
/// After the last phase, what is still open gets so long, then it is cut.
const FINISH_WITHIN: Duration = Duration::from_millis(800);
/// The progress that a start tells.
const PROGRESS: [&str; 3] = ["check database connection", "loading plugins", "starting app"];
/// What an app tells that was told to end, while it still serves.
const ENDING: [&str; 2] = ["destroying app...", "stopping app..."];

/// What everything in one stand-in shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    pub(super) site: Arc<Site>,
    pub(super) phases: watch::Sender<Phase>,
}

/// One life of the node, from start to its end.
struct Life {
    task: JoinHandle<io::Result<()>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// Carries out orders until nobody can give one any more.
pub(super) async fn live(
    shared: Shared,
    mut inbox: mpsc::UnboundedReceiver<(Order, oneshot::Sender<()>)>,
) {
    let mut life: Option<Life> = None;
    while let Some((order, told)) = inbox.recv().await {
        match order {
            Order::Start(pace) => {
                end(life.take(), &shared).await;
                let (orders, inbox) = mpsc::unbounded_channel();
                let task = tokio::spawn(one_life(shared.clone(), pace, inbox));
                life = Some(Life { task, orders });
            }
            Order::Kill => end(life.take(), &shared).await,
            order @ (Order::Terminate | Order::Command { .. }) => {
                if let Some(life) = &life {
                    // A life that has ended by itself needs no order.
                    let _ = life.orders.send(order);
                }
            }
        }
        let _ = told.send(());
    }
}

/// Ends a life as SIGKILL does.
async fn end(life: Option<Life>, shared: &Shared) {
    if let Some(life) = life {
        life.task.abort();
        // Either it had ended, or it is cancelled: both are meant.
        let _ = life.task.await;
    }
    shared.phases.send_replace(Phase::Off);
}

async fn one_life(
    shared: Shared,
    pace: Pace,
    orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    sleep(pace.refusing).await;
    let door = TcpListener::from_std(listen(shared.address)?)?;
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&door, &shared, &mut connections) => {}
        () = phases(&shared, pace.commanding, orders) => {}
    }
    drop(door);
    let finished = async { while connections.join_next().await.is_some() {} };
    // What has not finished is cut with the set.
    let _ = timeout(FINISH_WITHIN, finished).await;
    shared.phases.send_replace(Phase::Off);
    Ok(())
}

/// Goes from phase to phase, and ends with the life.
async fn phases(shared: &Shared, starting: Duration, mut orders: mpsc::UnboundedReceiver<Order>) {
    for message in PROGRESS {
        shared.phases.send_replace(Phase::Commanding { command: "start", message });
        sleep(starting / PROGRESS.len() as u32).await;
    }
    shared.phases.send_replace(Phase::Running);
    while let Some(order) = orders.recv().await {
        match order {
            Order::Command { command, lasting } => {
                let phase = Phase::Commanding { command, message: "working" };
                shared.phases.send_replace(phase);
                sleep(lasting).await;
                shared.phases.send_replace(Phase::Running);
            }
            Order::Terminate => break,
            // Carried out from outside: a life cannot kill itself.
            Order::Start(_) | Order::Kill => {}
        }
    }
    let [destroying, stopping] = ENDING.map(|message| Phase::Ending { message });
    for phase in [destroying, stopping, Phase::Stopped, Phase::Destroyed] {
        shared.phases.send_replace(phase);
        sleep(LAST_PHASE).await;
    }
}

async fn accept(door: &TcpListener, shared: &Shared, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            Ok((stream, _)) = door.accept() => {
                // Small answers would wait for the acknowledgement of the ones before.
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What a connection is doing, for its idle time.
struct Activity {
    in_flight: usize,
    since: Instant,
    upgrade: Option<OnUpgrade>,
    /// The upgrade named another app: what becomes of this one is not told there.
    other_app: bool,
}

impl Activity {
    /// Whether it was idle for too long; if it was not idle, its time begins anew.
    fn is_over(&mut self) -> bool {
        let over = self.in_flight == 0 && self.since.elapsed() >= KEEP_ALIVE;
        if self.in_flight > 0 {
            self.since = Instant::now();
        }
        over
    }
}

async fn connection(stream: TcpStream, shared: Shared) {
    let since = Instant::now();
    let idle = Activity { in_flight: 0, since, upgrade: None, other_app: false };
    let activity = Arc::new(Mutex::new(idle));
    let service = service_fn(|request| exchange(request, &shared, &activity));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let mut phase = shared.phases.subscribe();
    let mut leaving = false;
    loop {
        let idle_at = activity.lock().since + KEEP_ALIVE;
        tokio::select! {
            _ = &mut connection => break,
            () = sleep_until(idle_at) => {
                if activity.lock().is_over() {
                    return;
                }
            }
            _ = phase.wait_for(|phase| *phase == Phase::Destroyed), if !leaving => {
                // As `server.close()` in Node: idle connections end at once, the others when they are done.
                if activity.lock().in_flight == 0 {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                leaving = true;
            }
        }
    }
    let upgrade = activity.lock().upgrade.take();
    if let Some(upgrade) = upgrade
        && let Ok(upgraded) = upgrade.await
    {
        // A tunnel that breaks is over: there is nobody to tell.
        let hears = !activity.lock().other_app;
        let _ = tunnel(TokioIo::new(upgraded), phase, hears).await;
    }
}

async fn exchange(
    mut request: Request<Incoming>,
    shared: &Shared,
    activity: &Mutex<Activity>,
) -> io::Result<Response<Full<Bytes>>> {
    activity.lock().in_flight += 1;
    let upgrade = hyper::upgrade::on(&mut request);
    let phase = shared.phases.borrow().clone();
    let other_app = answer::other_app(request.uri(), request.headers()).is_some();
    let answer = answer::answer(&shared.site, &phase, request).await;
    let mut activity = activity.lock();
    activity.in_flight -= 1;
    activity.since = Instant::now();
    if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
        (activity.upgrade, activity.other_app) = (Some(upgrade), other_app);
    }
    answer
}

/// `/ws`: tells each change of phase to those it is about, answers pings, and ends when the client does or the
/// node is gone.
async fn tunnel(
    stream: TokioIo<hyper::upgrade::Upgraded>,
    mut phase: watch::Receiver<Phase>,
    hears: bool,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (heard, mut answers) = mpsc::channel(1);
    let hear = async {
        loop {
            let (opcode, payload) = ws::read(&mut reader).await?;
            match opcode {
                ws::CLOSE => return io::Result::Ok(()),
                // Nobody listens any more when this future is about to be dropped.
                ws::PING => drop(heard.send(payload).await),
                _ => {}
            }
        }
    };
    let tell = async {
        loop {
            let (opcode, frame) = tokio::select! {
                Some(ping) = answers.recv() => (ws::PONG, Some(ping)),
                changed = phase.changed(), if hears => match changed {
                    Ok(()) => (ws::TEXT, answer::maintaining(&phase.borrow_and_update()).map(String::into_bytes)),
                    Err(_) => return io::Result::Ok(()),
                },
            };
            if let Some(frame) = frame {
                ws::write(&mut writer, opcode, &frame, false).await?;
            }
        }
    };
    let closed = tokio::select! {
        heard = hear => heard,
        told = tell => return told,
    };
    closed?;
    ws::write(&mut writer, ws::CLOSE, &[], false).await
}
