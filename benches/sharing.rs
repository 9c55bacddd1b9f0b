//! What each way of sharing a listener between data threads costs, and how evenly it shares.
//!
//! Two threads with a runtime each, as the data threads have, accept connections that carry one request:
//! from one socket that both watch, from a socket of its own for each (`SO_REUSEPORT`), or from the first
//! thread, which hands each connection to whoever has fewer. Connections come 64 at a time, are spaced so
//! that each is accepted before the next, and leave together. Prints for each way the CPU time that the
//! two threads used per connection, and the busier one's share of the 64, in the median and at worst.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

const THREADS: usize = 2;
const AT_A_TIME: usize = 64;
const BATCHES: usize = 60;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[derive(Clone, Copy)]
enum Way {
    OneSocket,
    SocketEach,
    HandedOver,
}

fn main() -> io::Result<()> {
    // Rounds in turns, so that what the machine does meanwhile falls on all alike.
    let ways = [
        (Way::OneSocket, "one socket, watched by both"),
        (Way::SocketEach, "a socket each, SO_REUSEPORT"),
        (Way::HandedOver, "accepted by one, handed to the one with fewer"),
    ];
    let mut seen = [const { Vec::new() }; 3];
    for _ in 0..5 {
        for (seen, (way, _)) in seen.iter_mut().zip(ways) {
            seen.push(measure(way)?);
        }
    }
    for (seen, (_, name)) in seen.iter().zip(ways) {
        let mut costs: Vec<f64> = seen.iter().map(|one| one.0).collect();
        let mut shares: Vec<f64> = seen.iter().flat_map(|one| one.1.iter().copied()).collect();
        costs.sort_by(f64::total_cmp);
        shares.sort_by(f64::total_cmp);
        println!(
            "{name}: {:.1} µs of CPU a connection ({:.1} to {:.1}); busier thread {:.0} %, at worst {:.0} %",
            costs[costs.len() / 2],
            costs[0],
            costs[costs.len() - 1],
            shares[shares.len() / 2] * 100.0,
            shares[shares.len() - 1] * 100.0,
        );
    }
    Ok(())
}

/// CPU time a connection in µs, and the busier thread's share of each batch.
fn measure(way: Way) -> io::Result<(f64, Vec<f64>)> {
    let first = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr()?;
    let second = match way {
        Way::SocketEach => Some(socket(address)?),
        Way::OneSocket => Some(first.try_clone()?),
        Way::HandedOver => None,
    };
    let open: Arc<[AtomicUsize; THREADS]> = Arc::default();
    let (sender, receiver) = mpsc::unbounded_channel();
    let give = matches!(way, Way::HandedOver).then_some(sender);
    let (ours, theirs) = (open.clone(), open.clone());
    let threads = [
        std::thread::spawn(move || serve(0, Some(first), give, None, &ours)),
        std::thread::spawn(move || serve(1, second, None, Some(receiver), &theirs)),
    ];
    let shares = (0..BATCHES).map(|_| batch(address, &open)).collect::<io::Result<Vec<f64>>>()?;
    // A connection that sends nothing ends the thread that has it.
    while threads.iter().any(|thread| !thread.is_finished()) {
        drop(TcpStream::connect(address));
    }
    let mut spent = Duration::ZERO;
    for thread in threads {
        spent += thread.join().map_err(|_| io::Error::other("a thread has died"))??;
    }
    Ok((spent.as_secs_f64() * 1e6 / (BATCHES * AT_A_TIME) as f64, shares))
}

fn socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Opens connections one after the other, looks who has them, and closes them all.
fn batch(address: SocketAddr, open: &[AtomicUsize; THREADS]) -> io::Result<f64> {
    let mut clients = Vec::with_capacity(AT_A_TIME);
    for _ in 0..AT_A_TIME {
        let mut client = TcpStream::connect(address)?;
        client.write_all(REQUEST)?;
        client.read_exact(&mut [0; ANSWER.len()])?;
        clients.push(client);
    }
    let counts = open.each_ref().map(|count| count.load(SeqCst));
    drop(clients);
    let begun = Instant::now();
    while open.iter().any(|count| count.load(SeqCst) > 0) {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::other("connections do not end"));
        }
        std::thread::yield_now();
    }
    Ok(counts.iter().copied().max().unwrap_or_default() as f64 / AT_A_TIME as f64)
}

/// A thread that serves until a client leaves without a request. Returns the CPU time that it used.
fn serve(
    index: usize,
    listener: Option<TcpListener>,
    give: Option<mpsc::UnboundedSender<TcpStream>>,
    given: Option<mpsc::UnboundedReceiver<TcpStream>>,
    open: &Arc<[AtomicUsize; THREADS]>,
) -> io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let over = Rc::new(Cell::new(false));
    tasks.block_on(&runtime, async {
        match (listener, given) {
            (Some(listener), _) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                while !over.get() {
                    let (stream, _) = listener.accept().await?;
                    let fewer = open[1].load(SeqCst) < open[0].load(SeqCst);
                    match &give {
                        Some(give) if fewer && !give.is_closed() => {
                            open[1].fetch_add(1, SeqCst);
                            let _ = give.send(stream.into_std()?);
                        }
                        _ => begin(index, stream, open, &over),
                    }
                }
            }
            (None, Some(mut given)) => {
                while let (false, Some(stream)) = (over.get(), given.recv().await) {
                    open[1].fetch_sub(1, SeqCst);
                    begin(index, tokio::net::TcpStream::from_std(stream)?, open, &over);
                }
            }
            (None, None) => {}
        }
        Ok::<(), io::Error>(())
    })?;
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32))
}

/// One connection in a task of its own.
fn begin(
    index: usize,
    mut stream: tokio::net::TcpStream,
    open: &Arc<[AtomicUsize; THREADS]>,
    over: &Rc<Cell<bool>>,
) {
    open[index].fetch_add(1, SeqCst);
    let (open, over) = (open.clone(), over.clone());
    spawn_local(async move {
        let mut received = [0; 256];
        let mut asked = false;
        while let Ok(1..) = stream.read(&mut received).await {
            asked = true;
            if stream.write_all(ANSWER).await.is_err() {
                break;
            }
        }
        over.set(over.get() || !asked);
        drop(stream);
        open[index].fetch_sub(1, SeqCst);
    });
}
