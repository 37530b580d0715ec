//! The page: coordinators, one cluster with its members, what is running, recent events. Pure, for any size; what does
//! not fit is left out from below, the newest event last.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use regent_proto::v1::{
    Automation, ClusterStatus, CoordinatorRole, Event, MemberRole, MemberStatus, OperationKind,
    OperationState, StatusReply,
};

use super::View;
use crate::output::{bytes, duration, wall};

/// Width of a bar, characters.
const BAR: u64 = 12;

/// What a span means; colours only underline it, so that the page reads the same without them.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Strong,
    Good,
    Warn,
    Bad,
    Quiet,
}

struct Pen {
    colour: bool,
}

impl Pen {
    fn span(&self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        let style = Style::default();
        let colour = |colour: Color| if self.colour { style.fg(colour) } else { style };
        let style = match tone {
            Tone::Plain => style,
            Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Good => colour(Color::Green),
            Tone::Warn => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Quiet => style.add_modifier(Modifier::DIM),
        };
        Span::styled(text.into(), style)
    }

    /// A rule across the page with a title in it.
    fn rule(&self, title: &str, right: &str, width: u16) -> Line<'static> {
        let right = if right.is_empty() { String::new() } else { format!(" {right} ──") };
        let used = title.chars().count() + right.chars().count() + 4;
        let fill = "─".repeat((width as usize).saturating_sub(used));
        Line::from(vec![
            self.span(Tone::Quiet, "── "),
            self.span(Tone::Strong, title.to_owned()),
            self.span(Tone::Quiet, format!(" {fill}{right}")),
        ])
    }
}

fn bar(part: u64, whole: u64) -> String {
    let full = if whole == 0 { 0 } else { (part.min(whole) * BAR).div_ceil(whole) };
    let cells = |count: u64, cell: &str| cell.repeat(count as usize);
    format!("[{}{}]", cells(full, "#"), cells(BAR - full, "."))
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let pen = Pen { colour: view.colour };
    let area = frame.area();
    let mut top = header(&pen, view, area.width);
    if let Some(reply) = &view.reply {
        match reply.clusters.get(view.selected.min(reply.clusters.len().saturating_sub(1))) {
            Some(cluster) => top.extend(self::cluster(&pen, reply, cluster, view.selected, area.width)),
            None => top.push(Line::from(" no clusters")),
        }
    }
    let height = u16::try_from(top.len()).unwrap_or(u16::MAX).min(area.height);
    let [above, below] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(top), above);
    frame.render_widget(Paragraph::new(events(&pen, view, below)), below);
}

fn header(pen: &Pen, view: &View, width: u16) -> Vec<Line<'static>> {
    let keys = "Tab cluster  q quit";
    let Some(reply) = &view.reply else {
        let text = view.trouble.clone().unwrap_or_else(|| "asking the coordinators ...".to_owned());
        let mut lines = vec![Line::from(pen.span(Tone::Strong, format!(" REGENT  {keys}")))];
        lines.extend(text.lines().map(|line| Line::from(pen.span(Tone::Warn, format!(" {line}")))));
        return lines;
    };
    let time = wall(reply.wall_ms);
    let time = time.get(11..19).unwrap_or(&time).to_owned();
    let left = format!(" REGENT  {time} UTC");
    let gap = (width as usize).saturating_sub(left.chars().count() + keys.len() + 1);
    let mut lines = vec![Line::from(vec![
        pen.span(Tone::Strong, left),
        pen.span(Tone::Quiet, format!("{}{keys}", " ".repeat(gap))),
    ])];
    let mut spans = vec![pen.span(Tone::Quiet, " coordinators ")];
    for (i, coordinator) in reply.coordinators.iter().enumerate() {
        let tone = match coordinator.role() {
            CoordinatorRole::Leader => Tone::Good,
            CoordinatorRole::Follower => Tone::Plain,
            _ => Tone::Bad,
        };
        let role = match coordinator.role() {
            CoordinatorRole::Leader => "LEADER".to_owned(),
            other => other.to_string(),
        };
        if i > 0 {
            spans.push(pen.span(Tone::Quiet, " | "));
        }
        spans.push(pen.span(tone, format!("{} {role}", coordinator.region)));
    }
    lines.push(Line::from(spans));
    if let Some(trouble) = &view.trouble {
        let first = trouble.lines().next().unwrap_or_default();
        lines.push(Line::from(pen.span(Tone::Bad, format!(" ! old view: {first}"))));
    } else if reply.leader.is_none() {
        let text =
            format!(" ! no leader is known to coordinator {}: this view may be old", reply.answered_by);
        lines.push(Line::from(pen.span(Tone::Bad, text)));
    }
    lines
}

fn cluster(
    pen: &Pen,
    reply: &StatusReply,
    cluster: &ClusterStatus,
    selected: usize,
    width: u16,
) -> Vec<Line<'static>> {
    let count = reply.clusters.len();
    let title = match count {
        1 => cluster.name.clone(),
        _ => format!("{} ({} of {count})", cluster.name, selected + 1),
    };
    let right = format!("{}  epoch {}", cluster.automation(), cluster.epoch);
    let mut lines = vec![pen.rule(&title, &right, width)];
    if cluster.automation() != Automation::Automatic
        && let Some(reason) = &cluster.automation_reason
    {
        lines.push(Line::from(pen.span(Tone::Warn, format!(" {}: {reason}", cluster.automation()))));
    }
    if let Some(dns) = &cluster.dns {
        let text = format!(" {} -> {}  (ttl {}s, epoch {})", dns.name, dns.address, dns.ttl_s, dns.epoch);
        lines.push(Line::from(pen.span(Tone::Plain, text)));
    }
    let ttl_ms = cluster.policy.as_ref().map_or(0, |policy| policy.lease_ttl_ms);
    lines.push(Line::default());
    // The primary above, what streams from it below.
    let (primaries, others): (Vec<_>, Vec<_>) =
        cluster.members.iter().partition(|member| member.role() == MemberRole::Primary);
    if primaries.is_empty() {
        lines.push(Line::from(pen.span(Tone::Bad, " no primary")));
    }
    for member in primaries {
        lines.extend(self::member(pen, member, ttl_ms, "  "));
    }
    for member in others {
        lines.extend(self::member(pen, member, ttl_ms, "└─"));
    }
    lines.push(pen.rule("operation", "", width));
    lines.extend(operation(pen, cluster));
    lines
}

fn member(pen: &Pen, member: &MemberStatus, ttl_ms: u64, branch: &str) -> Vec<Line<'static>> {
    let role = match member.role() {
        MemberRole::Primary => pen.span(Tone::Good, format!("{:<8}", "PRIMARY")),
        MemberRole::Standby => pen.span(Tone::Plain, format!("{:<8}", "standby")),
        other => pen.span(Tone::Warn, format!("{:<8}", other.to_string())),
    };
    let heard = match member.heard_age_ms {
        Some(ms) => format!("heard {} ago", duration(ms)),
        None => "never heard".to_owned(),
    };
    let postgres = if member.accepting { Tone::Plain } else { Tone::Bad };
    let accepting = if member.accepting { "" } else { " (no connections)" };
    let mut lines = vec![Line::from(vec![
        pen.span(Tone::Quiet, format!(" {branch} ")),
        pen.span(Tone::Strong, format!("{:<16} ", member.name)),
        role,
        pen.span(postgres, format!(" {}{accepting}", member.postgres())),
        pen.span(Tone::Quiet, format!("  {heard}")),
    ])];
    let mut facts = Vec::new();
    if let Some(left_ms) = member.lease_remaining_ms {
        facts.push(pen.span(Tone::Good, format!("lease {} {}", bar(left_ms, ttl_ms), duration(left_ms))));
    }
    if member.role() != MemberRole::Primary {
        facts.push(match (member.sync_confirmed, &member.sync_reason) {
            (true, _) => pen.span(Tone::Good, "in sync"),
            (false, Some(reason)) => pen.span(Tone::Warn, format!("not in sync: {reason}")),
            (false, None) => pen.span(Tone::Warn, "not in sync"),
        });
    }
    let lag = match (member.lag_bytes, member.lag_ms) {
        (Some(count), Some(ms)) => Some(format!("lag {}, {}", bytes(count), duration(ms))),
        (Some(count), None) => Some(format!("lag {}", bytes(count))),
        (None, Some(ms)) => Some(format!("lag {}", duration(ms))),
        (None, None) => None,
    };
    facts.extend(lag.map(|lag| pen.span(Tone::Plain, lag)));
    let lsn = if member.role() == MemberRole::Primary { &member.write_lsn } else { &member.received_lsn };
    facts.extend(lsn.as_ref().map(|lsn| pen.span(Tone::Quiet, format!("at {lsn}"))));
    if !facts.is_empty() {
        let mut spans = vec![pen.span(Tone::Plain, " ".repeat(21))];
        for (i, fact) in facts.into_iter().enumerate() {
            if i > 0 {
                spans.push(pen.span(Tone::Plain, "  "));
            }
            spans.push(fact);
        }
        lines.push(Line::from(spans));
    }
    if let Some(job) = &member.job {
        let total = job.total_bytes.unwrap_or(0);
        let of = job.total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
        let percent = job.percent.map(|percent| format!(", {percent} %")).unwrap_or_default();
        let text = format!(
            "{}{} {} {}{of}{percent}",
            " ".repeat(21),
            job.kind,
            bar(job.done_bytes, total),
            bytes(job.done_bytes)
        );
        lines.push(Line::from(pen.span(Tone::Warn, text)));
    }
    if let Some(reason) = &member.guard_refused {
        let text = format!("{}! no automatic failover: {reason}", " ".repeat(21));
        lines.push(Line::from(pen.span(Tone::Bad, text)));
    }
    lines
}

/// The steps of a failover, for the line that shows how far it is. Others show their step alone.
const FAILOVER: [&str; 7] = ["declare", "fence", "choose", "promote", "redirect", "validate", "done"];

fn operation(pen: &Pen, cluster: &ClusterStatus) -> Vec<Line<'static>> {
    let Some(operation) = &cluster.operation else {
        return vec![Line::from(pen.span(Tone::Quiet, " none"))];
    };
    let to = operation.to_member.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
    let mut lines = vec![Line::from(pen.span(
        Tone::Strong,
        format!(
            " #{} {}{to} ({}), step {}, for {}",
            operation.id,
            operation.kind(),
            operation.trigger(),
            operation.step,
            duration(operation.elapsed_ms)
        ),
    ))];
    if operation.kind() == OperationKind::Failover
        && let Some(at) = FAILOVER.iter().position(|step| *step == operation.step)
    {
        let mut spans = vec![pen.span(Tone::Plain, " ")];
        for (i, step) in FAILOVER.iter().enumerate() {
            let (tone, text) = match i.cmp(&at) {
                std::cmp::Ordering::Less => (Tone::Good, (*step).to_owned()),
                std::cmp::Ordering::Equal => (Tone::Strong, format!("[{step}]")),
                std::cmp::Ordering::Greater => (Tone::Quiet, (*step).to_owned()),
            };
            if i > 0 {
                spans.push(pen.span(Tone::Quiet, " > "));
            }
            spans.push(pen.span(tone, text));
        }
        lines.push(Line::from(spans));
    }
    if operation.state() == OperationState::Waiting {
        let reason = operation.reason.as_deref().unwrap_or("no reason given");
        lines.push(Line::from(pen.span(Tone::Warn, format!(" waiting: {reason}"))));
    }
    lines
}

/// As many of the newest as fit.
fn events(pen: &Pen, view: &View, area: Rect) -> Vec<Line<'static>> {
    let Some(room) = (area.height as usize).checked_sub(1) else { return Vec::new() };
    let mut lines = vec![pen.rule("events", "", area.width)];
    let line = |event: &Event| {
        let time = wall(event.wall_ms);
        let time = time.get(11..19).unwrap_or_default().to_owned();
        Line::from(vec![
            pen.span(Tone::Quiet, format!(" {time} ")),
            pen.span(Tone::Strong, format!("{:<15} ", event.kind)),
            pen.span(Tone::Plain, event.text.clone()),
        ])
    };
    let selected = view.reply.as_ref().and_then(|reply| reply.clusters.get(view.selected));
    let shown: Vec<_> = view
        .events
        .iter()
        .filter(|event| selected.is_none_or(|cluster| cluster.name == event.cluster))
        .collect();
    lines.extend(shown.iter().skip(shown.len().saturating_sub(room)).copied().map(line));
    lines
}
