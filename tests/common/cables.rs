//! The cables of a syncgroup: every machine is called through a socket of its own, which hears in the first frame who
//! calls, so that any two machines can be cut off from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Pair = (u16, u16);

#[derive(Default)]
struct State {
    targets: BTreeMap<u16, SocketAddr>,
    cut: BTreeSet<Pair>,
    open: Vec<(Pair, TcpStream)>,
}

/// Cables between machines of group `test`, syncgroup `a`.
pub struct Cables {
    addresses: BTreeMap<u16, SocketAddr>,
    state: Arc<Mutex<State>>,
}

const fn pair(a: u16, b: u16) -> Pair {
    if a < b { (a, b) } else { (b, a) }
}

impl Cables {
    pub fn between(machines: impl IntoIterator<Item = u16>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let mut addresses = BTreeMap::new();
        for machine in machines {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            addresses.insert(machine, listener.local_addr().expect("an address"));
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || connect(machine, stream, &state));
                }
            });
        }
        Self { addresses, state }
    }

    /// What the machine has to say that its address is.
    pub fn address(&self, machine: u16) -> SocketAddr {
        self.addresses[&machine]
    }

    /// Where the machine really is.
    pub fn lead_to(&self, machine: u16, target: SocketAddr) {
        self.state.lock().expect("a lock").targets.insert(machine, target);
    }

    pub fn cut(&self, a: u16, b: u16) {
        let mut state = self.state.lock().expect("a lock");
        state.cut.insert(pair(a, b));
        state.open.retain(|(between, stream)| {
            if *between == pair(a, b) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            *between != pair(a, b)
        });
    }

    pub fn mend_all(&self) {
        self.state.lock().expect("a lock").cut.clear();
    }
}

/// One call of a machine, or of somebody else, who is never cut off.
fn connect(called: u16, mut stream: TcpStream, state: &Arc<Mutex<State>>) {
    let mut hello = vec![0; 4096];
    let Ok(count @ 1..) = stream.read(&mut hello) else { return };
    let between = pair(called, caller(&hello[..count]).unwrap_or(called));
    let target = {
        let state = state.lock().expect("a lock");
        state.targets.get(&called).copied().filter(|_| !state.cut.contains(&between))
    };
    let Some(mut other) = target.and_then(|target| TcpStream::connect(target).ok()) else { return };
    for stream in [&stream, &other] {
        stream.set_nodelay(true).expect("nodelay");
        let kept = stream.try_clone().expect("a clone");
        let mut state = state.lock().expect("a lock");
        if state.cut.contains(&between) {
            return;
        }
        state.open.push((between, kept));
    }
    if other.write_all(&hello[..count]).is_err() {
        return;
    }
    let back = (other.try_clone().expect("a clone"), stream.try_clone().expect("a clone"));
    for (from, to) in [(stream, other), back] {
        std::thread::spawn(move || pump(from, to));
    }
}

/// The storage that says hello: its name ends in its machine id.
fn caller(hello: &[u8]) -> Option<u16> {
    const GROUP: &[u8] = b"test/a/";
    let at = hello.windows(GROUP.len()).position(|window| window == GROUP)? + GROUP.len();
    let digit = hello.get(at).filter(|digit| digit.is_ascii_digit())?;
    Some(u16::from(digit - b'0'))
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
