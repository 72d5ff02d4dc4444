//! A wire between two machines that can be held or cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wire {
    /// They pass.
    Passes = 0,
    /// They wait: nobody notices a closed connection.
    Holds = 1,
    /// Connections are closed, and new ones at once.
    Cut = 2,
}

/// Forwards every connection to wherever it is told.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: Mutex<Option<SocketAddr>>,
    wire: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            target: Mutex::default(),
            wire: AtomicU8::new(Wire::Passes as u8),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let target = *shared.target.lock().expect("a lock");
                let Some(target) = target.filter(|_| shared.wire() != Wire::Cut as u8) else {
                    continue;
                };
                let Ok(other) = TcpStream::connect(target) else { continue };
                for stream in [&stream, &other] {
                    stream.set_nodelay(true).expect("nodelay");
                    let kept = stream.try_clone().expect("a clone");
                    shared.open.lock().expect("a lock").push(kept);
                }
                let back =
                    (other.try_clone().expect("a clone"), stream.try_clone().expect("a clone"));
                for (from, to) in [(stream, other), back] {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.pump(from, to));
                }
            }
        });
        Self { address, state }
    }

    /// Where connections go.
    pub fn to(&self, target: SocketAddr) {
        *self.state.target.lock().expect("a lock") = Some(target);
    }

    pub fn set(&self, wire: Wire) {
        self.state.wire.store(wire as u8, Ordering::SeqCst);
        if wire == Wire::Cut {
            for stream in self.state.open.lock().expect("a lock").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl State {
    fn wire(&self) -> u8 {
        self.wire.load(Ordering::SeqCst)
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while self.wire() == Wire::Holds as u8 {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.wire() == Wire::Cut as u8 || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
