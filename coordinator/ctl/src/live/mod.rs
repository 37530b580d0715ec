//! `regentctl status --watch` on a terminal: a page that is drawn again and again. Asks and draws; decides nothing.
//!
//! Whatever ends it (q, Ctrl-C, an error, a panic), the terminal is given back as it was.

mod page;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, io, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers},
};
use regent_proto::v1::{Event, StatusReply, StatusRequest, WatchRequest};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{Failure, client::Client};

/// Events that are kept for the page.
const EVENTS_KEPT: usize = 200;
/// How soon a key is seen when this ends.
const KEYS_POLL: Duration = Duration::from_millis(100);

/// What the page shows.
#[derive(Default)]
pub(crate) struct View {
    /// The last answer.
    pub reply: Option<StatusReply>,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    /// Oldest first.
    pub events: VecDeque<Event>,
    /// Which cluster, counted from 0.
    pub selected: usize,
    /// Colours or not.
    pub colour: bool,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Next,
    Previous,
    Redraw,
}

/// Runs until the operator quits.
pub(crate) async fn run(
    client: &Client,
    cluster: Option<String>,
    every: Duration,
    colour: bool,
) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init()?;
    let ended = follow(client, cluster, every, colour, &mut terminal).await;
    ratatui::restore();
    ended
}

/// Keys and resizes, from a thread: the terminal is read by blocking calls. It ends soon after the receiver has.
fn keys() -> mpsc::UnboundedReceiver<io::Result<Key>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let key = match event::poll(KEYS_POLL) {
                Ok(false) => continue,
                Ok(true) => event::read().map(meaning),
                Err(error) => Err(error),
            };
            let failed = key.is_err();
            if let Some(key) = key.transpose()
                && sender.send(key).is_err()
            {
                return;
            }
            if failed {
                return;
            }
        }
    });
    receiver
}

fn meaning(input: Input) -> Option<Key> {
    match input {
        Input::Resize(..) => Some(Key::Redraw),
        Input::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Tab | KeyCode::Right | KeyCode::Down => Some(Key::Next),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Up => Some(Key::Previous),
            _ => None,
        },
        _ => None,
    }
}

async fn follow(
    client: &Client,
    cluster: Option<String>,
    every: Duration,
    colour: bool,
    terminal: &mut DefaultTerminal,
) -> Result<(), Failure> {
    let mut view = View { colour, ..View::default() };
    let request = StatusRequest { cluster: cluster.clone() };
    let mut keys = keys();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events: Option<tonic::Streaming<Event>> = None;
    let mut next_event = 0;
    loop {
        terminal.draw(|frame| page::draw(frame, &view))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Ok(Key::Quit)) | None => return Ok(()),
                Some(Ok(Key::Next)) => view.turn(1),
                Some(Ok(Key::Previous)) => view.turn(-1),
                Some(Ok(Key::Redraw)) => {}
                Some(Err(error)) => return Err(error.into()),
            },
            _ = ticks.tick() => {
                // While the leader is lost the page says so and goes on: that is what one watches for. A key is heard all
                // the while, or q would wait for a coordinator's time-out.
                let asked = tokio::select! {
                    asked = client.call(async |operators| operators.get_status(request.clone()).await) => asked,
                    key = keys.recv() => match key {
                        Some(Ok(Key::Quit)) | None => return Ok(()),
                        _ => continue,
                    },
                };
                match asked {
                    Ok(reply) => {
                        view.trouble = None;
                        view.reply = Some(reply);
                    }
                    Err(failure @ Failure::Unreachable(_)) => view.trouble = Some(failure.to_string()),
                    Err(failure) => return Err(failure),
                }
                if events.is_none() && view.trouble.is_none() {
                    let request = WatchRequest { from_sequence: next_event, cluster: cluster.clone() };
                    events = client.call(async |operators| operators.watch(request.clone()).await).await.ok();
                }
            }
            event = async {
                match events.as_mut() {
                    Some(stream) => stream.message().await,
                    None => std::future::pending().await,
                }
            } => match event {
                Ok(Some(event)) if event.sequence >= next_event => {
                    next_event = event.sequence + 1;
                    view.events.push_back(event);
                    while view.events.len() > EVENTS_KEPT {
                        view.events.pop_front();
                    }
                }
                Ok(Some(_)) => {}
                // The stream has ended: taken up again, perhaps elsewhere, with the next look.
                Ok(None) | Err(_) => events = None,
            }
        }
    }
}

impl View {
    fn turn(&mut self, by: isize) {
        let count = self.reply.as_ref().map_or(0, |reply| reply.clusters.len());
        if count > 0 {
            self.selected = (self.selected as isize + by).rem_euclid(count as isize) as usize;
        }
    }
}
