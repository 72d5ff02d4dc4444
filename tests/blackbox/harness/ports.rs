//! Ports that nobody listens on.
//!
//! They are taken from below the range from which the kernel gives ports to outgoing connections, so a connection
//! that a daemon opens can never sit on the port of another daemon that is about to start again.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

fn candidate(count: u16) -> u16 {
    // Several test processes at once begin at different places.
    let start =
        u16::try_from(std::process::id().wrapping_mul(331) % u32::from(COUNT)).expect("u16");
    let turn = NEXT.fetch_add(count, Ordering::Relaxed);
    let at = (u32::from(start) + u32::from(turn)) % u32::from(COUNT - count);
    FIRST + u16::try_from(at).expect("u16")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A free port; not given to anybody else in this process.
pub fn free_port() -> u16 {
    (0..COUNT).map(|_| candidate(1)).find(|port| is_free(*port)).expect("a free port")
}

/// The first of the ports that `folio dev` uses: PORT.., +10+n, and the same +100 and +200.
pub fn free_block() -> u16 {
    const SPAN: u16 = 220;
    (0..200)
        .map(|_| candidate(SPAN))
        .find(|first| {
            [0, 1, 11, 12, 13, 14]
                .iter()
                .all(|n| [0, 100, 200].iter().all(|plane| is_free(first + plane + n)))
        })
        .expect("free ports")
}
