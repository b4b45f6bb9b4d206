//! A proxy between client and node that can lose replies: the connection is cut after a request has reached the node and
//! before its reply has reached the client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Listens on a port of its own and passes everything on, until it is told to lose replies.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    node: Mutex<String>,
    losing: AtomicBool,
    lost: AtomicUsize,
}

impl Proxy {
    pub fn to(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            node: Mutex::new(node.to_owned()),
            losing: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let node = accepting.node.lock().unwrap().clone();
                // A node that is down looks to the client like one.
                let Ok(node) = TcpStream::connect(node) else { continue };
                let (client_half, node_half) = (client.try_clone().unwrap(), node.try_clone().unwrap());
                std::thread::spawn(move || pass_on(client_half, node_half));
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || pass_back(node, client, &shared));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on connections lead to `node`.
    pub fn lead_to(&self, node: &str) {
        *self.shared.node.lock().unwrap() = node.to_owned();
    }

    /// The next reply is lost, with its connection.
    pub fn lose_next_reply(&self) {
        self.shared.losing.store(true, Ordering::SeqCst);
    }

    /// Replies lost so far.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn pass_back(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if shared.losing.swap(false, Ordering::SeqCst) {
            shared.lost.fetch_add(1, Ordering::SeqCst);
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
