//! Chunkfiles as a whole: headers, places, lengths (docs/FORMAT.md, "Chunkfile").

use super::bytes::{Bad, ChunkId, Flaw, Take, UNIT, envelope};
use super::finding::Kind;
use super::{Chunk, Run, hex, names};

const HEADER: usize = 4096;

/// Header of a chunkfile.
struct Header {
    mount: u8,
    id: ChunkId,
    size_units: u32,
    secret: [u8; 16],
    mount_uuid: [u8; 16],
}

fn decode(bytes: &[u8]) -> Result<Header, Flaw> {
    let mut take = Take(envelope(b"FoCh", bytes)?);
    let (mount, _, machine, log_id) = (take.u8()?, take.u8()?, take.u16()?, take.u32()?);
    let id = ChunkId { machine, log_id, number: take.u32()? };
    let (size_units, _created) = (take.u32()?, take.u64()?);
    let (secret, mount_uuid) = (take.raw16()?, take.raw16()?);
    if size_units <= super::slot::FIRST_UNIT {
        return Err(Bad.into());
    }
    Ok(Header { mount, id, size_units, secret, mount_uuid })
}

impl Run<'_> {
    /// Reads the headers of all chunkfiles. Those that cannot be used are returned, with what is wrong: the log may yet
    /// say that they are about to be made anew.
    pub fn chunkfile_headers(&mut self, all: &[ChunkId]) -> Vec<(ChunkId, Kind, String)> {
        let mut bad = Vec::new();
        for id in all {
            self.summary.chunkfiles += 1;
            let path = names::chunk(*id);
            let bytes = self.read(&path, 0, HEADER);
            match decode(&bytes) {
                Ok(header) => match self.wrong_place(*id, &header) {
                    Some((kind, what)) => bad.push((*id, kind, what)),
                    None => {
                        let Header { size_units, secret, .. } = header;
                        self.chunks.insert(*id, Chunk { size_units, secret });
                    }
                },
                Err(Flaw::Newer(major)) => {
                    bad.push((*id, Kind::NewerFormat, format!("format {major}")));
                }
                Err(Flaw::NotThis | Flaw::Damaged) => {
                    bad.push((*id, Kind::ChunkfileHeader, "its header cannot be read".to_owned()));
                }
            }
        }
        bad
    }

    fn wrong_place(&self, id: ChunkId, header: &Header) -> Option<(Kind, String)> {
        let Header { mount, mount_uuid, .. } = header;
        if *mount_uuid != self.label.mount_uuid {
            return Some((Kind::ChunkfileForeign, format!("it is of mount {}", hex(mount_uuid))));
        }
        (header.id != id || *mount != self.label.mount).then(|| {
            (
                Kind::ChunkfileMisplaced,
                format!("it says {} of mount {mount}", names::chunk(header.id)),
            )
        })
    }

    /// After the logs were read: what is wrong with chunkfiles and will not be mended by the next start.
    pub fn chunkfiles_missing(&mut self, bad: &[(ChunkId, Kind, String)]) {
        for (id, kind, what) in bad {
            if *kind == Kind::ChunkfileHeader && self.behind.chunkfiles.contains(id) {
                self.suppressed += 1;
                continue;
            }
            self.found(*kind, &names::chunk(*id), Some(0), what.clone());
        }
        let known: Vec<ChunkId> =
            self.checkpoint.iter().flat_map(|c| c.chunkfiles.keys()).copied().collect();
        for id in known {
            let is_bad = bad.iter().any(|(other, _, _)| *other == id);
            if !is_bad && !self.chunks.contains_key(&id) {
                let what = "the checkpoint names it, and it is not there".to_owned();
                self.found(Kind::ChunkfileMissing, &names::chunk(id), None, what);
            }
        }
        let all: Vec<(ChunkId, Chunk)> = self.chunks.iter().map(|(id, c)| (*id, *c)).collect();
        for (id, chunk) in all {
            let path = names::chunk(id);
            let most = u64::from(chunk.size_units) * UNIT;
            if let Some(len) = self.len(&path).filter(|len| *len > most) {
                let what = format!("{len} bytes instead of {most}");
                self.found(Kind::ChunkfileLong, &path, Some(most), what);
            }
        }
    }
}
