//! Floor 3: what travels, between actors and on the wire. Data, no behaviour.
//!
//! The wire, from the bytes up (`docs/PROTOCOL.md` is the same thing for people who write a client elsewhere):
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | the fixed header, its limits, encoding and incremental decoding |
//! | [`opcode`] | ONE table: opcode, who may call it, which daemon serves it, how large it may be |
//! | [`error`] | error codes, what a caller may do about each, exit codes |
//! | [`heads`] | the MessagePack heads of requests and answers |
//! | [`handshake`] | both ends of the handshake as pure state machines |
//! | [`codec`] | the frame decoder as a `tokio_util` codec |
pub mod codec;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod heads;
pub mod opcode;
