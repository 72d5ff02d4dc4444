//! `put get modify delete undelete stat`: one object at a time.

use super::args;
use super::context::{Context, parse_id, time_text};
use super::exit::{Failure, Outcome};
use super::output;
use super::progress::Progress;
use super::say;
use crate::client::{Body, GetOptions, Object, PutOptions, Reserve, Stat, Written};
use crate::cluster::opver::Opver;
use crate::format::ids::Tag;
use crate::messages::error::ErrorCode;
use crate::settings;
use serde_json::{Value, json};
use std::path::Path;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Files from here on get a progress bar.
const BAR_FROM: u64 = 8 << 20;

/// `folio put FILE|-`.
pub(super) async fn put(context: &Context, args: args::Put) -> Outcome {
    let body = body(&args.file)?;
    let client = context.connect().await?;
    let reserve = args.reserve.map(|reserve| match reserve {
        settings::Reserve::Percent(percent) => Reserve::Percent(percent),
        settings::Reserve::Bytes(bytes) => Reserve::Bytes(bytes),
    });
    let options = PutOptions { group: args.group, ext: args.ext, reserve, pinned: None };
    written(context, &client.put(body, options).await?)
}

/// `folio modify ID FILE|-`.
pub(super) async fn modify(context: &Context, args: args::Modify) -> Outcome {
    let id = parse_id(&args.id)?;
    let if_opver = opver(args.if_opver.as_deref())?;
    let body = body(&args.file)?;
    let client = context.connect().await?;
    written(context, &client.modify(&id, body, if_opver).await?)
}

/// `folio delete ID`.
pub(super) async fn delete(context: &Context, args: args::Delete) -> Outcome {
    let id = parse_id(&args.id)?;
    let if_opver = opver(args.if_opver.as_deref())?;
    let client = context.connect().await?;
    written(context, &client.delete(&id, if_opver).await?)
}

/// `folio undelete ID`.
pub(super) async fn undelete(context: &Context, args: args::Undelete) -> Outcome {
    let id = parse_id(&args.id)?;
    let client = context.connect().await?;
    written(context, &client.undelete(&id).await?)
}

/// `folio get ID`.
pub(super) async fn get(context: &Context, args: args::Get) -> Outcome {
    let id = parse_id(&args.id)?;
    let options = GetOptions {
        range: args.range.as_deref().map(parse_range).transpose()?,
        from: args.from,
        min_opver: opver(args.min_opver.as_deref())?,
    };
    let client = context.connect().await?;
    let object = client.get(&id, options).await?;
    let info = object.info;
    let progress = if object.info.count >= BAR_FROM { Some(Progress::bytes()) } else { None };
    if let Some(progress) = &progress {
        progress.start(object.info.count);
    }
    let mut before = 0;
    let told = |now: u64| {
        if let Some(progress) = &progress {
            progress.advance(now.saturating_sub(std::mem::replace(&mut before, now)));
        }
    };
    let Some(path) = args.output.filter(|path| path != Path::new("-")) else {
        return copy(object, &mut tokio::io::stdout(), told, say::unwritten).await;
    };
    let mut file = output::File::create(&path).await?;
    copy(object, file.writer(), told, |e| Failure::io("write", &path, e)).await?;
    file.finish().await?;
    drop(progress);
    if !context.json {
        return Ok(());
    }
    say::line(json!({"id": id.to_string(), "opver": Opver(info.opver).to_string(),
        "length": info.length, "first": info.first, "count": info.count,
        "crc32c": format!("{:08x}", info.crc32c)}))
}

/// All of an object, piece by piece; `told` is called with the bytes written so far.
async fn copy(
    mut object: Object,
    writer: &mut (impl AsyncWrite + Unpin),
    mut told: impl FnMut(u64),
    cannot: impl Fn(&std::io::Error) -> Failure,
) -> Outcome {
    let mut written = 0;
    while let Some(bytes) = object.chunk().await? {
        writer.write_all(&bytes).await.map_err(|e| cannot(&e))?;
        written += bytes.len() as u64;
        told(written);
    }
    writer.flush().await.map_err(|e| cannot(&e))
}

/// `folio stat ID`.
pub(super) async fn stat(context: &Context, args: args::Stat) -> Outcome {
    let id = parse_id(&args.id)?;
    let client = context.connect().await?;
    let rows = stat_rows(&client.stat(&id, args.from).await?);
    if context.json {
        let map: serde_json::Map<String, Value> =
            rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        return say::line(Value::Object(map));
    }
    let lines = rows.into_iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key:10} {text}\n"),
        other => format!("{key:10} {other}\n"),
    });
    say::whole(lines.collect::<String>())
}

fn stat_rows(stat: &Stat) -> Vec<(&'static str, Value)> {
    let (id, answer) = (&stat.id, &stat.answer);
    vec![
        ("id", json!(id.to_string())),
        ("group", json!(id.group)),
        ("syncgroup", json!(id.syncgroup)),
        ("owner", json!(id.object.machine)),
        ("mount", json!(answer.mount)),
        ("kind", json!(answer.kind.to_string())),
        ("length", json!(answer.length)),
        ("capacity", json!(answer.capacity)),
        ("opver", json!(Opver(answer.opver).to_string())),
        ("created", json!(time_text(answer.created_ms))),
        ("modified", json!(time_text(answer.modified_ms))),
        ("crc32c", json!(format!("{:08x}", answer.crc32c))),
        ("state", json!(answer.state.to_string())),
        ("forwarded", json!(answer.forwarded)),
    ]
}

fn written(context: &Context, written: &Written) -> Outcome {
    let Written { id, opver, acks, copies, degraded } = written;
    if *degraded {
        say::aside(format_args!(
            "folio: {id}: degraded: on {copies} machine(s) only; `folio df` shows which storages are down"
        ));
    }
    let opver = Opver(*opver).to_string();
    context.print(
        &json!({"id": id.to_string(), "opver": opver, "acks": acks.to_string(), "copies": copies,
            "degraded": degraded}),
        id,
    )
}

fn body(file: &Path) -> Outcome<Body> {
    if file == Path::new("-") {
        return Ok(Body::reader(Box::new(tokio::io::stdin()), None));
    }
    let metadata = std::fs::metadata(file).map_err(|e| Failure::io("read", file, &e))?;
    if metadata.is_dir() {
        return Err(Failure::usage(
            format!("{} is a folder", file.display()),
            "name a file; `folio import DIR -m MANIFEST` stores all files of a folder",
        ));
    }
    let body = Body::file(file);
    if metadata.len() < BAR_FROM {
        return Ok(body);
    }
    let progress = Progress::bytes();
    progress.start(metadata.len());
    let mut before = 0;
    Ok(body.on_progress(move |now| {
        progress.advance(now.saturating_sub(std::mem::replace(&mut before, now)));
    }))
}

fn opver(text: Option<&str>) -> Outcome<Option<Tag>> {
    let Some(text) = text else { return Ok(None) };
    let Opver(tag) = text.parse().map_err(|e| {
        Failure::usage(
            format!("{text:?}: {e}"),
            "copy it from `folio stat ID` or from a put's answer",
        )
    })?;
    Ok(Some(tag))
}

/// `FIRST-LAST`, zero-based, inclusive; `FIRST-` is to the end.
fn parse_range(text: &str) -> Outcome<(u64, Option<u64>)> {
    let bad = || {
        Failure::new(
            ErrorCode::BadRange,
            format!("{text:?} is no range"),
            "--range FIRST-LAST, from 0, both inclusive: the first 100 bytes are 0-99",
        )
    };
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let first = number(first).ok_or_else(bad)?;
    if last.is_empty() {
        return Ok((first, None));
    }
    let last = number(last).filter(|last| *last >= first).ok_or_else(bad)?;
    Ok((first, Some(last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0-0", Some((0, Some(0))))]
    #[case("5-9", Some((5, Some(9))))]
    #[case("5-", Some((5, None)))]
    #[case("9-5", None)]
    #[case("-5", None)]
    #[case("5", None)]
    #[case("", None)]
    #[case("a-b", None)]
    #[case("+1-2", None)]
    #[case("1-2-3", None)]
    #[case("0-99999999999999999999", None)]
    fn a_range_is_never_misread(#[case] text: &str, #[case] range: Option<(u64, Option<u64>)>) {
        match parse_range(text) {
            Ok(found) => assert_eq!(Some(found), range),
            Err(failure) => {
                assert_eq!(range, None);
                assert_eq!(failure.exit_code(), 2);
            }
        }
    }
}
