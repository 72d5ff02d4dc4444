//! `conflicts`: the losing versions of all mounts, for an operator.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::conflicts::{self, Kept, Stands};
use crate::actors::session::Problem;
use crate::cluster::opver::Opver;
use crate::format::file_id::FileId;
use crate::format::ids::Tag;

/// Versions that one answer lists.
const ROWS_MAX: usize = 1000;

impl Sight {
    /// `conflicts [list|show N|restore N|drop N]`.
    pub(super) async fn conflicts(&self, words: &[String]) -> CommandResult {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] | ["list"] => self.list_conflicts().await,
            ["show", which] => Ok(self.show_conflict(&self.conflict(which).await?)),
            ["restore", which] => {
                let kept = self.conflict(which).await?;
                let (opver, copies) =
                    conflicts::restore(&self.room, &kept).await.map_err(|p| said(&p))?;
                Ok(ConsoleAnswer::new()
                    .fact("restored", self.id(&kept))
                    .fact("opver", Opver(opver).to_string())
                    .fact("copies", u64::from(copies.copies))
                    .fact("degraded", copies.degraded)
                    .fact("dropped", u64::from(kept.number())))
            }
            ["drop", which] => {
                let kept = self.conflict(which).await?;
                conflicts::give_up(&kept).await.map_err(|p| said(&p))?;
                Ok(ConsoleAnswer::new()
                    .fact("dropped", u64::from(kept.number()))
                    .fact("id", self.id(&kept)))
            }
            _ => Err("expected `conflicts [list | show N | restore N | drop N]`, with N out of \
                      `conflicts list`"
                .to_owned()),
        }
    }

    /// The version of this number or name. A number is made from the name, so one out of an old list still means the same
    /// version or none.
    async fn conflict(&self, which: &str) -> Result<Kept, String> {
        let mut all = conflicts::list(&self.room).await.map_err(|p| said(&p))?;
        let number = which.parse::<u32>().ok();
        all.retain(|kept| number == Some(kept.number()) || kept.name() == which);
        match (all.pop(), all.is_empty()) {
            (Some(kept), true) => Ok(kept),
            (Some(kept), false) => Err(format!(
                "two conflicts have the number {which}: use the name instead, such as {}",
                kept.name()
            )),
            (None, _) => Err(format!(
                "there is no conflict {which}; `conflicts list` has their numbers in its first column"
            )),
        }
    }

    async fn list_conflicts(&self) -> CommandResult {
        let mut all = conflicts::list(&self.room).await.map_err(|p| said(&p))?;
        let found = all.len();
        all.truncate(ROWS_MAX);
        let rows = all.iter().map(|kept| {
            vec![
                kept.number().into(),
                kept.mount.index.into(),
                self.id(kept).into(),
                opver(kept.lost.tag).into(),
                kept.lost.tag.machine.into(),
                time(kept.lost.modified_ms).into(),
                Value::Bytes(kept.lost.length),
                stands(kept.stands).into(),
            ]
        });
        let columns =
            ["number", "mount", "id", "opver", "made_by", "modified", "length", "lost_to"];
        let mut answer = ConsoleAnswer::new().fact("conflicts", found);
        if found > all.len() {
            answer = answer.fact("shown", all.len());
        }
        answer = answer.table("versions", &columns, rows.collect());
        if found > 0 {
            answer = answer
                .fact("next", "`conflicts show N`, `conflicts restore N`, `conflicts drop N`");
        }
        Ok(answer)
    }

    fn show_conflict(&self, kept: &Kept) -> ConsoleAnswer {
        let (path, from, length) = kept.bytes_at();
        let number = kept.number();
        let take = format!("tail -c +{} '{path}' | head -c {length}", from + 1);
        ConsoleAnswer::new()
            .fact("number", number)
            .fact("id", self.id(kept))
            .fact("mount", u64::from(kept.mount.index))
            .fact("opver", opver(kept.lost.tag))
            .fact("made_by", u64::from(kept.lost.tag.machine))
            .fact("modified", time(kept.lost.modified_ms))
            .fact("length", Value::Bytes(length))
            .fact("crc32c", format!("{:08x}", kept.lost.payload_crc))
            .fact("lost_to", stands(kept.stands))
            .fact("name", kept.name())
            .fact("file", path)
            .fact("offset", from)
            .fact("bytes", take)
            .fact("restore", format!("`conflicts restore {number}` makes it the content again"))
            .fact("drop", format!("`conflicts drop {number}` gives it up on all mirrors"))
    }

    fn id(&self, kept: &Kept) -> String {
        let (group, syncgroup) = (&self.settings.group, &self.settings.syncgroup);
        // Names of a running storage are good ones.
        FileId::new(group, syncgroup, kept.lost.object, None)
            .map_or_else(|error| error.to_string(), |id| id.to_string())
    }

    /// What `status` says of them.
    pub(super) fn conflict_warnings(&self) -> Option<(String, &'static str)> {
        let mounts = self.room.placement.mounts().iter().filter(|mount| mount.is_online());
        match mounts.map(|mount| mount.stats().archived).sum::<u64>() {
            0 => None,
            1 => Some(("1 edit lost a conflict and is kept".to_owned(), REMEDY)),
            n => Some((format!("{n} edits lost a conflict and are kept"), REMEDY)),
        }
    }
}

const REMEDY: &str = "`conflicts list`, then `conflicts restore N` or `conflicts drop N`";

fn opver(tag: Tag) -> String {
    Opver(tag).to_string()
}

fn stands(stands: Stands) -> String {
    match stands {
        Stands::Live(tag) => opver(tag),
        Stands::Deleted(tag) => format!("{} (deleted)", opver(tag)),
        Stands::Gone => "deleted for good".to_owned(),
        Stands::Unreadable => "unreadable here".to_owned(),
    }
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.to_string())
}

fn said(problem: &Problem) -> String {
    match problem.remedy.as_str() {
        "" => problem.message.clone(),
        remedy => format!("{}; {remedy}", problem.message),
    }
}
