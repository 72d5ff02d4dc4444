//! What one connection of a benchmark does, and how it knows that what it reads is what it wrote.

use super::super::args::{Bench, Load, Mix};
use super::super::exit::{Failure, Outcome};
use super::meter::Meter;
use super::wire::Wire;
use crate::format::crc::crc32c;
use crate::messages::heads::{Delete, Get, IdBytes, Modify, Put, WINDOW, Written, decode};
use crate::messages::opcode::Opcode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Instant;

/// An object of this connection; no other touches it.
struct Item {
    id: IdBytes,
    crc: u32,
    length: usize,
}

/// One connection.
pub(super) struct Worker {
    wire: Wire,
    load: Load,
    read_percent: u8,
    payload: Vec<u8>,
    sizes: Mix,
    /// Of the content that is written next.
    length: usize,
    items: Vec<Item>,
    rng: SmallRng,
    stamp: u64,
    /// Whether the other end stores at all.
    real: bool,
}

/// What was done.
enum Did {
    Read,
    Wrote,
}

impl Worker {
    pub(super) fn new(wire: Wire, args: &Bench, sizes: Mix, number: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(number);
        let mut payload = vec![0; usize::try_from(sizes.max()).unwrap_or(0)];
        rng.fill(payload.as_mut_slice());
        let real = wire.group != super::null_server::GROUP;
        Self {
            wire,
            load: args.load,
            read_percent: args.read_percent,
            length: payload.len(),
            payload,
            sizes,
            items: Vec::new(),
            rng,
            stamp: number << 40,
            real,
        }
    }

    /// Makes the objects that the load needs.
    pub(super) async fn prepare(&mut self, objects: u64) -> Outcome {
        for _ in 0..objects {
            let item = self.put().await?;
            self.items.push(item);
        }
        Ok(())
    }

    /// Works until the meter says that it is enough.
    pub(super) async fn run(&mut self, meter: &Meter) {
        self.wire.end_with(meter.end());
        while let Some(due) = meter.turn().await {
            // What is deleted has to be there first; that is not measured.
            let victim = match self.load {
                Load::Delete => match self.put().await {
                    Ok(item) => Some(item),
                    Err(failure) if meter.failed(&failure) => return,
                    Err(_) => continue,
                },
                Load::Put | Load::Get | Load::Modify | Load::Mixed | Load::NullServer => None,
            };
            let begun = if self.load == Load::Delete { Instant::now() } else { due };
            match self.once(victim).await {
                Ok(did) => {
                    let bytes = match (did, self.load) {
                        (Did::Wrote, Load::Delete) => 0,
                        (Did::Read | Did::Wrote, _) => self.length as u64,
                    };
                    meter.done(begun.elapsed(), bytes);
                }
                Err(failure) if meter.failed(&failure) => return,
                Err(_) => {}
            }
        }
    }

    async fn once(&mut self, victim: Option<Item>) -> Outcome<Did> {
        if let Some(item) = victim {
            let head = Delete { id: item.id, token: self.wire.token(), if_opver: None };
            self.wire.call(Opcode::Delete, &head, &[], 0).await?;
            return Ok(Did::Wrote);
        }
        let read = match self.load {
            Load::Get => true,
            Load::Mixed => self.rng.random_range(0..100) < self.read_percent,
            Load::Put | Load::Modify | Load::Delete | Load::NullServer => false,
        };
        if self.load == Load::Put {
            self.put().await?;
            return Ok(Did::Wrote);
        }
        let index = self.rng.random_range(0..self.items.len().max(1));
        if read {
            self.get(index).await?;
            return Ok(Did::Read);
        }
        self.modify(index).await?;
        Ok(Did::Wrote)
    }

    /// Another content, of one of the lengths.
    fn stamp(&mut self) -> u32 {
        self.stamp += 1;
        let length = self.sizes.pick(self.rng.random());
        self.length = usize::try_from(length).unwrap_or(0).min(self.payload.len());
        let stamp = self.stamp.to_le_bytes();
        let len = self.length.min(stamp.len());
        self.payload[..len].copy_from_slice(&stamp[..len]);
        crc32c(&self.payload[..self.length])
    }

    async fn put(&mut self) -> Outcome<Item> {
        let crc = self.stamp();
        let head = Put {
            token: self.wire.token(),
            mount: None,
            reserve: None,
            length: Some(self.length as u64),
        };
        let payload = &self.payload[..self.length];
        let frame = self.wire.call(Opcode::Put, &head, payload, crc).await?;
        let written: Written = decode(frame.head()).map_err(crate::client::Error::from)?;
        Ok(Item { id: written.id, crc, length: self.length })
    }

    async fn modify(&mut self, index: usize) -> Outcome {
        let crc = self.stamp();
        let Some(item) = self.items.get_mut(index) else { return Ok(()) };
        let head = Modify {
            id: item.id,
            token: self.wire.token(),
            if_opver: None,
            length: Some(self.length as u64),
        };
        self.wire.call(Opcode::Modify, &head, &self.payload[..self.length], crc).await?;
        (item.crc, item.length) = (crc, self.length);
        Ok(())
    }

    /// The frame's payload was held against its checksum when it was decoded; here that checksum is held against the
    /// one that was written.
    async fn get(&mut self, index: usize) -> Outcome {
        let Some(item) = self.items.get(index) else { return Ok(()) };
        let head = Get {
            id: item.id,
            first: 0,
            last: None,
            min_opver: None,
            local_only: false,
            window: WINDOW,
        };
        let frame = self.wire.call(Opcode::Get, &head, &[], 0).await?;
        self.length = item.length;
        let same = frame.payload().len() == item.length
            && (!self.real || frame.header.payload_crc == item.crc);
        if same { Ok(()) } else { Err(Failure::failed("other bytes than were written", "")) }
    }
}
