//! Salvages: the list, and one with its relations and what can be done with it.

use super::{Column, Paint, Table, Tone, ago, bytes, duration};
use crate::command::salvage::{Kept, List};

pub(crate) fn salvages(list: &List, paint: &Paint) -> String {
    if list.salvages.is_empty() {
        return "no salvages\n".to_owned();
    }
    let mut table = Table::new(
        0,
        &[
            Column::Left("MEMBER"),
            Column::Right("EPOCH"),
            Column::Right("TL"),
            Column::Left("FROM"),
            Column::Left("TO"),
            Column::Right("TRANSACTIONS"),
            Column::Right("SPAN"),
            Column::Left("WHOLE"),
            Column::Left("KEPT"),
            Column::Left("FOLDER"),
        ],
    );
    for kept in &list.salvages {
        let salvage = &kept.salvage;
        let whole =
            if salvage.partial.is_none() { ("complete", Tone::Good) } else { ("partial", Tone::Warn) };
        table.row([
            (kept.member.clone(), None),
            (salvage.epoch.to_string(), None),
            (salvage.timeline.to_string(), None),
            (salvage.from_lsn.clone(), None),
            (salvage.to_lsn.clone(), None),
            (salvage.transactions.to_string(), None),
            (duration(salvage.span_ms), None),
            (whole.0.to_owned(), Some(whole.1)),
            (if salvage.data.is_some() { "WAL, directory" } else { "WAL" }.to_owned(), None),
            (salvage.folder.clone(), None),
        ]);
    }
    table.render(paint)
}

pub(crate) fn salvage(kept: &Kept, paint: &Paint) -> String {
    let salvage = &kept.salvage;
    let mut text = paint.tone(Tone::Heading, &format!("{} of {}", salvage.folder, kept.member)) + "\n";
    let heard = kept.heard_age_ms.map_or_else(|| "never".to_owned(), ago);
    let length = salvage
        .from_lsn
        .parse::<regent_types::Lsn>()
        .ok()
        .zip(salvage.to_lsn.parse::<regent_types::Lsn>().ok())
        .map_or_else(String::new, |(from, to)| format!(" ({})", bytes(to.bytes_since(from))));
    let whole = salvage.partial.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
    for (name, value) in [
        ("epoch", salvage.epoch.to_string()),
        ("timeline", salvage.timeline.to_string()),
        ("range", format!("{} to {}{length}", salvage.from_lsn, salvage.to_lsn)),
        ("commits", format!("{} in {}", salvage.transactions, duration(salvage.span_ms))),
        ("complete", whole),
        ("heard", heard),
    ] {
        text.push_str(&format!("  {name:<10} {value}\n"));
    }
    if !salvage.relations.is_empty() {
        let columns = [
            Column::Left("RELATION"),
            Column::Right("INSERTED"),
            Column::Right("UPDATED"),
            Column::Right("DELETED"),
        ];
        let mut table = Table::new(2, &columns);
        for relation in &salvage.relations {
            table.plain([
                relation.name.clone(),
                relation.inserts.to_string(),
                relation.updates.to_string(),
                relation.deletes.to_string(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(paint));
        let more = salvage.relations_total.saturating_sub(salvage.relations.len() as u64);
        if more > 0 {
            text.push_str(&format!("  and {more} more: see manifest.json in the folder\n"));
        }
        text.push_str("  Changes of transactions that never committed are counted too.\n");
    }
    text.push('\n');
    match &salvage.data {
        Some(_) => text.push_str(&format!(
            "Rows can be read on the host of {}:\n  regentctl salvage extract --dir {}\n",
            kept.member, salvage.folder
        )),
        None => text.push_str(
            "Only WAL is kept: pg_waldump reads it, and a base backup of before the cut can be rolled forward with it.\n\
             No rows can be read from it alone. With salvage_keep = \"directory\" in agent.toml they can, the next time.\n",
        ),
    }
    text
}
