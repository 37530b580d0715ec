//! Raft as far as the core relies on it: votes, an ordered log, commitment by a majority, leaderships that do not know that
//! they are over, read-index rounds. Votes and log survive a restart, what was applied does not.
//!
//! The real one is openraft; this follows the same rules in a fraction of its code so that ten thousand runs fit into
//! minutes. What is promised of it: an entry committed once is in every later leader's log, and only the newest leadership
//! finds a majority.

use std::rc::Rc;

use rand::{Rng, rngs::StdRng};
use regent_core::{Leadership, Proposal};
use regent_types::CoordinatorId;

use crate::clock::MS;

const BEAT_NS: u64 = 250 * MS;
const ELECTION_MIN_MS: u64 = 1_000;
const ELECTION_MAX_MS: u64 = 1_500;
/// Worst re-election by these time-outs, ms: lease of the old one, a time-out, two rounds.
pub const ELECTION_WORST_MS: u64 = 3_200;
/// Without a majority's answer for this long a leader falls silent (DESIGN section 7).
const SILENT_NS: u64 = 2 * ELECTION_MAX_MS * MS;

/// One entry; without a proposal it is a leader's first, blank one.
#[derive(Debug)]
pub struct Entry {
    /// Under which it was appended.
    pub leadership: Leadership,
    /// What it carries.
    pub proposal: Option<Proposal>,
}

/// Between nodes.
#[derive(Debug, Clone)]
pub enum Message {
    /// Entries after `prev`, and a heartbeat.
    Append { term: u64, prev: usize, prev_term: u64, entries: Vec<Rc<Entry>>, commit: usize, round: u64 },
    /// Up to where the follower agrees.
    Appended { term: u64, agrees: bool, matched: usize, round: u64 },
    /// A candidate asks.
    Vote { term: u64, last: usize, last_term: u64 },
    /// The answer.
    Voted { term: u64, granted: bool },
}

/// What a node believes itself to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Follower,
    Candidate { votes: Vec<usize> },
    Leader,
}

/// A read-index round under way.
#[derive(Debug, Clone, Copy)]
struct Round {
    number: u64,
    read_index: u64,
}

/// One node.
#[derive(Debug)]
pub struct Raft {
    id: usize,
    nodes: usize,
    term: u64,
    voted: Option<usize>,
    /// Entry `i` has index `i + 1`.
    pub log: Vec<Rc<Entry>>,
    role: Role,
    commit: usize,
    leader: Option<usize>,
    heard_ns: u64,
    due_ns: u64,
    next: Vec<usize>,
    matched: Vec<usize>,
    answered_ns: Vec<u64>,
    round_seen: Vec<u64>,
    rounds: Vec<Round>,
    last_round: u64,
    beat_due_ns: u64,
    /// Index of the blank entry of this leadership.
    blank: usize,
}

type Out = Vec<(usize, Message)>;

impl Raft {
    /// An empty node.
    pub fn new(id: usize, nodes: usize) -> Self {
        Self {
            id,
            nodes,
            term: 0,
            voted: None,
            log: Vec::new(),
            role: Role::Follower,
            commit: 0,
            leader: None,
            heard_ns: 0,
            due_ns: 0,
            next: vec![0; nodes],
            matched: vec![0; nodes],
            answered_ns: vec![0; nodes],
            round_seen: vec![0; nodes],
            rounds: Vec::new(),
            last_round: 0,
            beat_due_ns: 0,
            blank: 0,
        }
    }

    /// After a restart: votes and log are there, nothing else.
    pub fn restart(&mut self, now_ns: u64, rng: &mut StdRng) {
        self.role = Role::Follower;
        (self.commit, self.leader, self.heard_ns) = (0, None, 0);
        self.rounds.clear();
        self.put_off(now_ns, rng);
    }

    fn put_off(&mut self, now_ns: u64, rng: &mut StdRng) {
        let ms = ELECTION_MAX_MS + rng.random_range(ELECTION_MIN_MS..ELECTION_MAX_MS) - ELECTION_MIN_MS;
        self.due_ns = now_ns + ms * MS;
    }

    /// The leadership that this node believes it has.
    pub fn leadership(&self) -> Option<Leadership> {
        (self.role == Role::Leader).then(|| self.own())
    }

    fn own(&self) -> Leadership {
        Leadership { term: self.term, node: CoordinatorId(self.id as u64 + 1) }
    }

    /// Who leads, as far as it knows.
    pub fn leader(&self) -> Option<usize> {
        if self.role == Role::Leader { Some(self.id) } else { self.leader }
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// How much is committed, as far as it knows.
    pub fn commit(&self) -> usize {
        self.commit
    }

    fn majority(&self) -> usize {
        self.nodes / 2 + 1
    }

    fn last_term(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.leadership.term)
    }

    /// Appends; the entry's index. `None` when it does not lead.
    pub fn propose(&mut self, proposal: Option<Proposal>) -> Option<u64> {
        let leadership = self.leadership()?;
        self.log.push(Rc::new(Entry { leadership, proposal }));
        self.matched[self.id] = self.log.len();
        self.beat_due_ns = 0;
        self.advance();
        Some(self.log.len() as u64)
    }

    /// Begins a read-index round; its number.
    pub fn begin_round(&mut self) -> Option<u64> {
        self.leadership()?;
        self.last_round += 1;
        let read_index = self.commit.max(self.blank) as u64;
        self.rounds.push(Round { number: self.last_round, read_index });
        self.round_seen[self.id] = self.last_round;
        self.beat_due_ns = 0;
        Some(self.last_round)
    }

    /// Rounds that a majority has answered: number, leadership, read index.
    pub fn confirmed(&mut self) -> Vec<(u64, Leadership, u64)> {
        let Some(leadership) = self.leadership() else {
            self.rounds.clear();
            return Vec::new();
        };
        let majority = self.majority();
        let seen = &self.round_seen;
        let has = |number: u64| seen.iter().filter(|last| **last >= number).count() >= majority;
        let done: Vec<_> = self.rounds.iter().filter(|round| has(round.number)).copied().collect();
        self.rounds.retain(|round| !has(round.number));
        done.into_iter().map(|round| (round.number, leadership, round.read_index)).collect()
    }

    /// Time passes.
    pub fn tick(&mut self, now_ns: u64, rng: &mut StdRng) -> Out {
        if self.role == Role::Leader {
            let silent = now_ns.saturating_sub(self.quorum_ns(now_ns)) > SILENT_NS;
            if silent || now_ns < self.beat_due_ns {
                return Vec::new();
            }
            self.beat_due_ns = now_ns + BEAT_NS;
            return (0..self.nodes).filter(|to| *to != self.id).map(|to| (to, self.append(to))).collect();
        }
        if now_ns < self.due_ns {
            return Vec::new();
        }
        self.campaign(now_ns, rng)
    }

    /// Asks for votes now.
    pub fn campaign(&mut self, now_ns: u64, rng: &mut StdRng) -> Out {
        self.put_off(now_ns, rng);
        self.term += 1;
        (self.voted, self.leader) = (Some(self.id), None);
        self.role = Role::Candidate { votes: vec![self.id] };
        let vote = Message::Vote { term: self.term, last: self.log.len(), last_term: self.last_term() };
        (0..self.nodes).filter(|to| *to != self.id).map(|to| (to, vote.clone())).collect()
    }

    /// When a majority, itself included, was heard last.
    fn quorum_ns(&self, now_ns: u64) -> u64 {
        let mut answered = self.answered_ns.clone();
        answered[self.id] = now_ns;
        answered.sort_unstable();
        answered[self.nodes - self.majority()]
    }

    fn append(&self, to: usize) -> Message {
        let prev = self.next[to].min(self.log.len());
        Message::Append {
            term: self.term,
            prev,
            prev_term: prev.checked_sub(1).map_or(0, |at| self.log[at].leadership.term),
            entries: self.log[prev..].to_vec(),
            commit: self.commit,
            round: self.last_round,
        }
    }

    fn follow(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted, self.leader) = (term, None, None);
            self.role = Role::Follower;
            self.rounds.clear();
        }
    }

    /// A message arrives.
    pub fn receive(&mut self, now_ns: u64, from: usize, message: Message, rng: &mut StdRng) -> Out {
        match message {
            Message::Vote { term, last, last_term } => {
                let heard_ns = match self.role {
                    Role::Leader => self.quorum_ns(now_ns),
                    _ => self.leader.map_or(0, |_| self.heard_ns),
                };
                let heard = heard_ns > 0 && now_ns.saturating_sub(heard_ns) < ELECTION_MIN_MS * MS;
                // Who hears a leader does not help to depose it.
                if heard && term > self.term {
                    return Vec::new();
                }
                self.follow(term);
                let newer = (last_term, last) >= (self.last_term(), self.log.len());
                let granted = term == self.term && newer && self.voted.is_none_or(|voted| voted == from);
                if granted {
                    self.voted = Some(from);
                    self.put_off(now_ns, rng);
                }
                vec![(from, Message::Voted { term: self.term, granted })]
            }
            Message::Voted { term, granted } => {
                self.follow(term);
                let majority = self.majority();
                if let Role::Candidate { votes } = &mut self.role
                    && granted
                    && term == self.term
                {
                    if !votes.contains(&from) {
                        votes.push(from);
                    }
                    if votes.len() >= majority {
                        self.lead(now_ns);
                    }
                }
                Vec::new()
            }
            Message::Append { term, prev, prev_term, entries, commit, round } => {
                self.follow(term);
                let refuse = Message::Appended { term: self.term, agrees: false, matched: 0, round };
                if term < self.term {
                    return vec![(from, refuse)];
                }
                self.role = Role::Follower;
                (self.leader, self.heard_ns) = (Some(from), now_ns);
                self.put_off(now_ns, rng);
                let fits = prev <= self.log.len()
                    && prev.checked_sub(1).is_none_or(|at| self.log[at].leadership.term == prev_term);
                if !fits {
                    let matched = self.log.len().min(prev.saturating_sub(1));
                    return vec![(from, Message::Appended { term, agrees: false, matched, round })];
                }
                let matched = prev + entries.len();
                for (offset, entry) in entries.into_iter().enumerate() {
                    let at = prev + offset;
                    if self.log.get(at).is_some_and(|own| own.leadership != entry.leadership) {
                        assert!(at >= self.commit, "a committed entry is never replaced");
                        self.log.truncate(at);
                    }
                    if at == self.log.len() {
                        self.log.push(entry);
                    }
                }
                self.commit = self.commit.max(commit.min(matched));
                vec![(from, Message::Appended { term, agrees: true, matched, round })]
            }
            Message::Appended { term, agrees, matched, round } => {
                self.follow(term);
                if self.role != Role::Leader || term != self.term {
                    return Vec::new();
                }
                self.answered_ns[from] = now_ns;
                self.round_seen[from] = self.round_seen[from].max(round);
                if !agrees {
                    self.next[from] = matched.min(self.next[from]);
                    return vec![(from, self.append(from))];
                }
                self.matched[from] = self.matched[from].max(matched);
                self.next[from] = self.next[from].max(matched);
                self.advance();
                Vec::new()
            }
        }
    }

    fn lead(&mut self, now_ns: u64) {
        self.role = Role::Leader;
        self.next = vec![self.log.len(); self.nodes];
        self.matched = vec![0; self.nodes];
        self.answered_ns = vec![now_ns; self.nodes];
        self.round_seen = vec![0; self.nodes];
        self.rounds.clear();
        // Numbers of an earlier leadership's rounds must not be taken for this one's.
        self.last_round = self.term << 32;
        self.propose(None);
        self.blank = self.log.len();
    }

    fn advance(&mut self) {
        let mut matched = self.matched.clone();
        matched.sort_unstable();
        let quorum = matched[self.nodes - self.majority()];
        // Only an entry of its own term commits what came before it.
        if quorum > self.commit && self.log[quorum - 1].leadership.term == self.term {
            self.commit = quorum;
            self.beat_due_ns = 0;
        }
    }
}
