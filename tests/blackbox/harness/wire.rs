//! A person with `nc` at the admin console.

use super::PATIENCE;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// One console connection.
pub struct Console {
    reader: BufReader<TcpStream>,
    /// The first line that the daemon said.
    pub banner: String,
}

impl Console {
    /// Connects and reads the banner.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the console listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut reader = BufReader::new(stream);
        let mut banner = String::new();
        reader.read_line(&mut banner).expect("a banner");
        Self { reader, banner: banner.trim_end().to_owned() }
    }

    /// A connection whose banner somebody has read.
    pub fn after_banner(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self { reader: BufReader::new(stream), banner: String::new() }
    }

    /// Sends a line and returns the lines of the answer, up to the line with the dot.
    pub fn ask(&mut self, line: &str) -> Vec<String> {
        writeln!(self.reader.get_mut(), "{line}").expect("the console takes a line");
        let mut answer = Vec::new();
        loop {
            let mut text = String::new();
            let count = self.reader.read_line(&mut text).expect("an answer");
            assert!(count > 0, "{line:?}: the console closed in the middle of {answer:?}");
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            if text == "." {
                return answer;
            }
            answer.push(text);
        }
    }

    /// Sends a line and reads until the daemon closes.
    pub fn ask_last(&mut self, line: &str) -> String {
        writeln!(self.reader.get_mut(), "{line}").expect("the console takes a line");
        let mut rest = String::new();
        while self.reader.read_line(&mut rest).expect("closed in order") > 0 {}
        rest
    }
}
