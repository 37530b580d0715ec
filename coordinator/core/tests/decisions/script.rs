//! The language of the golden scenarios. A line that begins with `>` is a command; what follows it is what the core said.
//!
//! | command | what it does |
//! | --- | --- |
//! | `world a b` | a configured cluster `gravl`, nothing appointed; `max_lag=BYTES`, `max_lag_ms=MS`, `disk_alert_s=S`, `cooldown=MS`, `automation=approve`, `dns=embedded,route53`, `sync=degrade`, `sync=strict:2`, `sync=off` (5 s time-out) |
//! | `healthy a b` | the same, led to *sync confirmed*; `healthy a b / rides: x y` makes a second cluster |
//! | `set a silent`, `heard`, `down`, `up`, `disk=EIO`, `lsn=0/900`, `system=1`, `refused=WHY` | changes a member's facts |
//! | `set a cut`, `streams`, `sample_age=MS`, `oldest=0/900`, `full_in=S` | the same, of its WAL |
//! | `set a observed=primary` | its server was made and is led by another tool |
//! | `restart a`, `reboot a` | its guard starts anew, in the same boot or in another one |
//! | `run 5s` | heartbeats, leases, relays, detector: nobody answers effects |
//! | `auto 5s` | the same, and everybody answers as a healthy member would |
//! | `answer EFFECT` | the healthy answer to the effect of that name; with `late`, to one that was retired |
//! | `refuse EFFECT WHY`, `unknown EFFECT WHY` | the other outcomes |
//! | `driver starts`, `driver dead`, `driver cut-off` | an external driver begins for the fence that waits; it says what has become of its instance |
//! | `leader 2` | another leadership; with `forgets`, no ages are inherited; `relays on`, `relays off` |
//! | `policy lease_ttl=60s partition_timeout=1m` | an operator's change of the policy, times in seconds; `guard=b:30`, `stale` |
//! | `member add c`, `member remove b` | an operator's change of the member list; `at=10.0.0.1:5432`, `unpromotable` |
//! | `knows a 1` | the member acts by that member list |
//! | `group named 7`, `made a b`, `import a b`, `obeys a` | a cluster of another group: see `import.rs` |
//! | `lists a 2` | the member has that list of promotable members on its disk, for the current epoch |
//! | `group found 1:r1 2:r2`, `add 4:r4 version=1`, `remove 3`, `joined 4`, `left 3` | the coordinators; `consent` |
//! | `create gravl a b adopt=7001`, `forget silent=9 consent` | clusters that come and go |
//! | `operator failover to=b consent=b epoch=1 id=r1 dry` | and `operator drill full`, `pause`, `resume`, `assume-fenced`, `acknowledge`, `approve`, `automation MODE`, `switchover to=b`, `schedule to=b in=5`, `failback`, `abort` |
//! | `set b misses-shutdown`, `set a shuts-down-late` | in a switchover: the target's stream breaks early, the shutdown is overdue |
//! | `level` | the group understands everything that this build does |
//! | `report` | the last ended operation, step by step |
//! | `set a holds-rule`, `set a names=''` | the primary's agent does not carry out the synchronous rule; its server runs with another one |
//! | `set a blocks=rpo_limit` | the primary refuses writes by a limit of its own; without a name no more |
//! | `rules` | the synchronous rules that were logged |
//! | `status` | one line; `verdicts`: why each candidate lost; `loss`: of the last failover |
//!
//! `@rides COMMAND` names another cluster than `gravl`.

use std::collections::BTreeMap;

use regent_core::{
    Body, Confinement, Effect, EffectKind, EventKind, ExternalEvidence, FenceProof, Kind, OperatorRequest,
    Reply, RequestKind, SyncState,
};
use regent_types::{
    Automation, DataForm, Directive, DiskProbe, Epoch, Outcome, PostgresState, RequestId, SystemId,
};

use super::world::{Seen, World, cluster_name, config, effect_name, member_name, outcome};

pub struct Script {
    world: Option<World>,
    start_ns: u64,
    effects: BTreeMap<String, Effect>,
    many: bool,
    /// The effect that an external driver was started for.
    driver: Option<Effect>,
}

impl Script {
    pub fn new() -> Self {
        Self { world: None, start_ns: 0, effects: BTreeMap::new(), many: false, driver: None }
    }

    /// Runs one command and says what came of it.
    pub fn command(&mut self, line: &str) -> Vec<String> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let cluster = match words[0].strip_prefix('@') {
            Some(name) => {
                words.remove(0);
                name
            }
            None => "gravl",
        };
        let (verb, args) = words.split_first().expect("a command");
        if matches!(*verb, "world" | "healthy") {
            self.begin(*verb == "healthy", args);
            return Vec::new();
        }
        let mut said = Vec::new();
        self.act(cluster, verb, args, &mut said);
        self.drain(&mut said);
        said
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("the first command is `world` or `healthy`")
    }

    fn begin(&mut self, healthy: bool, args: &[&str]) {
        let mut configs = Vec::new();
        let mut name = "gravl";
        for part in args.split(|word| *word == "/") {
            let mut members = Vec::new();
            let mut settings = Vec::new();
            for word in part {
                match (word.strip_suffix(':'), word.split_once('=')) {
                    (Some(named), _) => name = named,
                    (None, Some(setting)) => settings.push(setting),
                    (None, None) => members.push(*word),
                }
            }
            if members.is_empty() {
                continue;
            }
            let mut made = config(name, &members);
            for (key, value) in settings {
                match key {
                    "cooldown" => made.policy.cooldown_ms = value.parse().unwrap(),
                    "automation" if value == "approve" => made.automation = Automation::Approve,
                    "automation" if value == "observe" => made.automation = Automation::Observe,
                    "max_lag" => made.policy.max_lag_bytes = Some(value.parse().unwrap()),
                    "max_lag_ms" => made.policy.max_lag_ms = Some(value.parse().unwrap()),
                    "disk_alert_s" => {
                        made.policy.disk_full_alert_ms = 1_000 * value.parse::<u64>().unwrap();
                    }
                    "failback" => {
                        made.policy.failback = match value {
                            "approval" => regent_core::FailbackMode::Approval,
                            "automatic" => regent_core::FailbackMode::Automatic,
                            _ => regent_core::FailbackMode::Manual,
                        }
                    }
                    "sync" => made.policy.synchronous = synchronous(value),
                    "dns" => made.dns_providers = value.split(',').map(str::to_owned).collect(),
                    _ => panic!("no setting {key}"),
                }
            }
            configs.push(made);
        }
        self.many = configs.len() > 1;
        let mut world = if healthy { World::healthy_with(configs) } else { World::new(configs) };
        world.seen.clear();
        self.start_ns = world.now_ns;
        self.world = Some(world);
    }

    fn act(&mut self, cluster: &str, verb: &str, args: &[&str], said: &mut Vec<String>) {
        let rest = || args[1..].join(" ");
        match verb {
            "set" => self.set(cluster, args[0], &rest()),
            "restart" | "reboot" => self.world().restart(cluster, args[0], verb == "restart"),
            "run" | "auto" => {
                let seconds: u64 = args[0].trim_end_matches('s').parse().expect("seconds");
                for _ in 0..seconds {
                    self.world().second();
                    self.remember();
                    if verb == "auto" {
                        self.world().answer_all();
                        self.remember();
                    }
                }
            }
            "leader" => {
                let node = args[0].parse().expect("a node");
                self.world().lead(node, args.get(1) != Some(&"forgets"));
            }
            "relays" => self.world().relays = args[0] == "on",
            "answer" => {
                let late = args.contains(&"late");
                let effect = self.effect(cluster, args[0], late);
                match effect.map(|effect| self.world().answer(&effect)) {
                    Some(Some(body)) => drop(self.world().propose(body)),
                    Some(None) => said.push("nobody answers yet".into()),
                    None => said.push(format!("no {} waits", args[0])),
                }
            }
            "refuse" | "unknown" => {
                let effect = self.effect(cluster, args[0], false).expect("an effect that waits");
                let reason = rest();
                let came =
                    if verb == "refuse" { Outcome::Refused { reason } } else { Outcome::Unknown { reason } };
                drop(self.world().propose(outcome(&effect.key, came)));
            }
            "driver" => self.driver(cluster, args[0], said),
            "operator" => self.operator(cluster, args, said),
            "policy" => self.policy(cluster, args),
            "member" => self.member(cluster, args),
            "knows" => self.world().member(cluster, args[0]).members_version = args[1].parse().unwrap(),
            "lists" => {
                let epoch = self.world().cluster(cluster).epoch;
                self.world().member(cluster, args[0]).list = Some((epoch, args[1].parse().unwrap()));
            }
            "made" | "import" | "obeys" => super::import::command(self.world(), verb, args),
            "group" if args[0] == "named" => super::import::command(self.world(), "named", &args[1..]),
            "group" | "create" | "forget" => super::membership::command(self.world(), cluster, verb, args),
            "level" => {
                drop(self.world().propose(Body::RaiseLevel { level: regent_core::FEATURE_LEVEL }));
            }
            "report" => {
                let cluster = self.world().cluster(cluster);
                let last = cluster.finished.back().expect("an operation has ended");
                said.push(format!("{:?} {:?}", last.kind, last.result.as_ref().expect("it has ended")));
                said.extend(last.steps.iter().map(|step| format!("{:?}: {}", step.step, step.evidence)));
            }
            "status" => said.push(self.status(cluster)),
            "rules" => {
                let rules = &self.world().cluster(cluster).synchronous;
                let logged: Vec<String> = rules.logged.iter().map(ToString::to_string).collect();
                let proven = if rules.is_proven() { "proven" } else { "not proven" };
                said.push(format!("{} ({proven})", logged.join("; ")));
            }
            "verdicts" => {
                let operation = self.world().cluster(cluster).operation.as_ref().expect("an operation");
                said.extend(operation.verdicts.iter().map(|v| short(&format!("{}: {}", v.member, v.reason))));
            }
            "loss" => {
                let cluster = self.world().cluster(cluster);
                let mut all = cluster.finished.iter().chain(&cluster.operation).rev();
                let last = all
                    .find(|operation| operation.kind == Kind::Failover || operation.kind.is_planned())
                    .expect("a failover");
                said.push(format!("{:?}", last.loss));
                said.extend(last.acknowledged_loss.clone().map(|loss| format!("acknowledged: {loss}")));
            }
            _ => panic!("no command {verb}"),
        }
        self.remember();
    }

    /// Effects are found by name after they were retired, too.
    fn remember(&mut self) {
        let world = self.world.as_ref().expect("begun");
        for (name, cluster) in &world.state.clusters {
            for effect in cluster.effects() {
                self.effects.insert(format!("{name}/{}", effect_name(effect)), effect.clone());
            }
        }
    }

    fn effect(&mut self, cluster: &str, name: &str, late: bool) -> Option<Effect> {
        let remembered = self.effects.get(&format!("{cluster}/{name}")).filter(|_| late).cloned();
        let pending = self.world().pending(cluster, name);
        remembered.or(pending)
    }

    fn set(&mut self, cluster: &str, name: &str, fact: &str) {
        let now_ns = self.world().now_ns;
        let member = self.world().member(cluster, name);
        match fact.split_once('=').unwrap_or((fact, "")) {
            ("silent", _) => member.silent = true,
            ("heard", _) => member.silent = false,
            ("up", _) => member.down_since_ns = None,
            ("down", _) => member.down_since_ns = Some(now_ns),
            ("disk", error) => member.probe = DiskProbe::Failed { error: error.into() },
            ("lsn", lsn) => member.lsn = lsn.parse().unwrap(),
            ("system", id) => member.system_id = Some(SystemId(id.parse().unwrap())),
            ("form", "primary") => member.form = regent_types::DataForm::Primary,
            ("form", "standby") => member.form = regent_types::DataForm::Standby,
            ("cut", _) => member.streaming = false,
            ("streams", _) => member.streaming = true,
            ("sample_age", ms) => member.sample_age_ms = ms.parse().unwrap(),
            ("oldest", lsn) => member.retention.oldest_lsn = Some(lsn.parse().unwrap()),
            ("full_in", "never") => member.retention.full_in_s = None,
            ("full_in", s) => member.retention.full_in_s = Some(s.parse().unwrap()),
            ("refused", why) => member.refused = Some(why.to_owned()).filter(|why| !why.is_empty()),
            ("observed", role) => {
                let primary = role == "primary";
                member.state = if primary { PostgresState::Primary } else { PostgresState::Standby };
                member.form = if primary { DataForm::Primary } else { DataForm::Standby };
                member.streaming = !primary;
                member.system_id = Some(SystemId(7001));
                member.timeline.get_or_insert(regent_types::Timeline(1));
            }
            ("misses-shutdown", _) => member.misses_shutdown = true,
            ("shuts-down-late", _) => member.shuts_down_late = true,
            ("blocks", "") => member.blocked_writes = None,
            ("blocks", why) => {
                member.blocked_writes = Some(regent_types::BlockedWrites {
                    reason: why.to_owned(),
                    for_ms: 0,
                    ended_ms_ago: None,
                });
            }
            ("holds-rule", _) => member.holds_rule = true,
            ("names", names) => {
                member.synchronous.as_mut().expect("a rule").names = names.to_owned();
            }
            ("timeline", id) => member.timeline = Some(regent_types::Timeline(id.parse().unwrap())),
            _ => panic!("no fact {fact}"),
        }
    }

    /// A driver answers for what it was started for, whatever waits by then.
    fn driver(&mut self, cluster: &str, word: &str, said: &mut Vec<String>) {
        let waiting = self.world().pending(cluster, "fence");
        if word == "starts" || self.driver.is_none() {
            self.driver.clone_from(&waiting);
        }
        let (Some(waiting), Some(begun)) = (waiting, self.driver.clone()) else {
            said.push("no fence waits".into());
            return;
        };
        let EffectKind::Fence { instance, epoch, candidates, .. } = begun.kind else { unreachable!() };
        let confinement = match word {
            "starts" => return,
            "dead" => Confinement::Dead,
            "cut-off" => Confinement::CutOff,
            other => panic!("no answer {other}"),
        };
        let world = self.world();
        world.release(&cluster_name(cluster), instance);
        let reports = world.reports(&cluster_name(cluster), &candidates, epoch);
        let proof = FenceProof::External(ExternalEvidence {
            driver: "stonith".into(),
            begun_for: begun.key,
            instance,
            confinement,
            detail: "power is off".into(),
            elapsed_ms: 700,
        });
        let body = Body::FenceProven { key: waiting.key, proof, candidates: reports };
        drop(world.propose(body));
    }

    fn operator(&mut self, cluster: &str, args: &[&str], said: &mut Vec<String>) {
        let value = |key: &str| args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        let now_ns = self.world().now_ns;
        let world = self.world();
        let current = world.cluster(cluster);
        let evidence = world.detector.evidence(now_ns, current);
        let kind = match args[0] {
            "failover" => RequestKind::Failover {
                to: value("to").map(member_name),
                consent_to_loss: value("consent").map(member_name),
                evidence,
            },
            "pause" => RequestKind::Pause,
            "resume" => RequestKind::Resume,
            "switchover" => RequestKind::Switchover {
                to: value("to").map(member_name),
                readiness: Box::new(world.detector.readiness(now_ns, current)),
            },
            "schedule" => RequestKind::Schedule {
                to: value("to").map(member_name),
                at_wall_ms: now_ns / 1_000_000
                    + value("in").expect("in=SECONDS").parse::<u64>().unwrap() * 1000,
            },
            "failback" => {
                RequestKind::Failback { readiness: Box::new(world.detector.readiness(now_ns, current)) }
            }
            "abort" => RequestKind::Abort,
            "drill" => RequestKind::Drill {
                full: args.contains(&"full"),
                readiness: Box::new(world.detector.readiness(now_ns, current)),
            },
            "assume-fenced" => RequestKind::AssumeFenced,
            "acknowledge" => RequestKind::Acknowledge,
            "approve" => RequestKind::Approve {
                evidence,
                readiness: Box::new(world.detector.readiness(now_ns, current)),
            },
            "automation" => {
                let wanted = [Automation::Automatic, Automation::Approve, Automation::Observe];
                let automation = wanted.into_iter().find(|mode| args.contains(&mode.name()));
                RequestKind::SetAutomation { automation: automation.expect("a mode") }
            }
            other => panic!("no request {other}"),
        };
        let body = Body::Request(OperatorRequest {
            cluster: cluster_name(cluster),
            actor: "alice".into(),
            reason: "because".into(),
            expected_epoch: value("epoch").map_or(current.epoch, |epoch| Epoch(epoch.parse().unwrap())),
            request_id: RequestId::new(value("id").unwrap_or(args[0])).unwrap(),
            kind,
        });
        if args.contains(&"dry") {
            let before = world.state.clone();
            let reply = world.state.dry_run(world.leadership, &world.proposal(body));
            assert_eq!(world.state, before, "a dry run changes nothing");
            said.push("dry run:".into());
            self.reply(0, &reply, said);
            return;
        }
        world.excepted |= args[0] == "assume-fenced";
        let reply = world.propose(body);
        if let Ok(applied) = reply
            && applied.events.is_empty()
        {
            said.push(format!("answered as before: operation {:?}", applied.operation.map(|id| id.0)));
        }
    }

    fn policy(&mut self, cluster: &str, args: &[&str]) {
        let from = self.world().cluster(cluster).config.policy.clone();
        let mut to = from.clone();
        let mut guards = BTreeMap::new();
        for (key, value) in args.iter().filter_map(|arg| arg.split_once('=')) {
            let ms = || value.parse::<u64>().expect("seconds") * 1_000;
            match key {
                "lease_ttl" => to.lease.ttl_ms = ms(),
                "partition_timeout" => to.partition_timeout_ms = ms(),
                "sync" => to.synchronous = synchronous(value),
                "guard" => {
                    let (member, limit) = value.split_once(':').expect("member:seconds");
                    guards.insert(member_name(member), limit.parse::<u64>().unwrap() * 1_000);
                }
                _ => panic!("no policy {key}"),
            }
        }
        let mut seen = from.clone();
        if args.contains(&"stale") {
            seen.partition_timeout_ms += 1;
        }
        let (from, to) = (Box::new(seen), Box::new(to));
        self.request(cluster, RequestKind::SetPolicy { from, to, election_worst_ms: 3_000, guards });
    }

    fn member(&mut self, cluster: &str, args: &[&str]) {
        let member = member_name(args[1]);
        let kind = match args[0] {
            "add" => {
                let name = cluster_name(cluster);
                let (count, instance) = (self.world().members.len() as u8, self.world().next_instance());
                let key = (name.clone(), member.clone());
                let made = super::member::Member::new(&name, &member, instance);
                self.world().members.entry(key).or_insert(made);
                let mut made = config("x", &["x"]).members[&member_name("x")].clone();
                made.host = format!("10.0.1.{count}");
                for arg in args {
                    if let Some((host, port)) = arg.strip_prefix("at=").and_then(|at| at.split_once(':')) {
                        (made.host, made.port) = (host.into(), port.parse().unwrap());
                    }
                }
                made.promotable = !args.contains(&"unpromotable");
                RequestKind::AddMember { member, config: Box::new(made) }
            }
            "remove" => RequestKind::RemoveMember { member },
            other => panic!("no change {other}"),
        };
        self.request(cluster, kind);
    }

    /// A request that nobody has made before.
    fn request(&mut self, cluster: &str, kind: RequestKind) {
        let world = self.world();
        let request_id = RequestId::new(format!("n{}", world.state.applied_index)).unwrap();
        let body = Body::Request(OperatorRequest {
            cluster: cluster_name(cluster),
            actor: "alice".into(),
            reason: "because".into(),
            expected_epoch: world.cluster(cluster).epoch,
            request_id,
            kind,
        });
        drop(world.propose(body));
    }

    fn status(&mut self, cluster: &str) -> String {
        let cluster = self.world().cluster(cluster);
        let primary = cluster.appointment.as_ref().map_or("nobody".into(), |appointment| {
            let verified = if appointment.established.is_some() { "" } else { ", not verified" };
            format!("{} (instance {}{verified})", appointment.member, appointment.instance.0)
        });
        let sync = cluster.sync.iter().map(|(member, sync)| match sync {
            SyncState::Confirmed { epoch } => format!("{member} confirmed for {epoch}"),
            SyncState::Unconfirmed { why } => format!("{member} not ({why})"),
        });
        let sync: Vec<String> = sync.collect();
        let operation = cluster
            .operation
            .as_ref()
            .map_or("none".into(), |operation| format!("{} in {:?}", operation.id, operation.step));
        format!(
            "epoch {} fenced through {}; primary {primary}; sync: {}; operation {operation}",
            cluster.epoch,
            cluster.fenced_through,
            sync.join(", ")
        )
    }

    fn drain(&mut self, said: &mut Vec<String>) {
        let start_ns = self.start_ns;
        for (at_ns, seen) in std::mem::take(&mut self.world().seen) {
            let at_s = (at_ns - start_ns) / super::world::SECOND_NS;
            match seen {
                Seen::Proposed(body) => {
                    if let Body::StepOverdue { step, after_ms, .. } = *body {
                        said.push(format!("+{at_s}s overdue: {step:?} after {after_ms} ms"));
                    }
                }
                Seen::Lease(member, answer) => said.push(short(&format!("+{at_s}s {member}: {answer}"))),
                Seen::Replied(reply) => self.reply(at_s, &reply, said),
            }
        }
    }

    fn reply(&self, at_s: u64, reply: &Reply, said: &mut Vec<String>) {
        match reply {
            Err(rejection) => said.push(short(&format!("+{at_s}s REJECTED {rejection}"))),
            Ok(applied) => {
                for event in &applied.events {
                    // The declaration and the fence of one entry say the same.
                    if event.kind == EventKind::RecordChanged {
                        continue;
                    }
                    let cluster = if self.many { format!("{} ", event.cluster) } else { String::new() };
                    let text = &event.text;
                    said.push(short(&format!("+{at_s}s {cluster}{:?} [{}] {text}", event.kind, event.rule)));
                }
                let effects: Vec<String> = applied.effects.iter().map(describe).collect();
                if !effects.is_empty() {
                    said.push(format!("     -> {}", effects.join(", ")));
                }
            }
        }
    }
}

/// `degrade`, `strict:2`, `off`.
fn synchronous(value: &str) -> regent_core::SynchronousPolicy {
    let (shortage, standbys) = value.split_once(':').unwrap_or((value, "1"));
    regent_core::SynchronousPolicy {
        on: shortage != "off",
        standbys: standbys.parse().expect("a number"),
        shortage: match shortage {
            "strict" => regent_core::Shortage::Strict,
            _ => regent_core::Shortage::Degrade,
        },
        timeout_ms: 5_000,
        ..Default::default()
    }
}

fn describe(effect: &Effect) -> String {
    let name = effect_name(effect);
    let names = |members: &[regent_types::MemberName]| {
        members.iter().map(|member| member.as_str()).collect::<Vec<_>>().join(" ")
    };
    match &effect.kind {
        EffectKind::Fence { epoch, member, candidates, .. }
        | EffectKind::Collect { epoch, member, candidates } => {
            format!("{name}({epoch}) {member}, prepare {}", names(candidates))
        }
        EffectKind::Handover { epoch, member, target, .. } => {
            format!("handover({epoch}) {member}, drain {target}")
        }
        EffectKind::Agent { member, directive: Directive::Promote { epoch, instance, initialize, .. } } => {
            let how = if *initialize { ", initialise" } else { "" };
            format!("promote({epoch}) {member} instance {}{how}", instance.0)
        }
        EffectKind::Agent { member, directive: Directive::Rejoin { upstream, branches, .. } } => {
            let left = branches.iter().map(|b| format!(" {}:{}@{}", b.epoch, b.timeline, b.switch_lsn));
            format!("rejoin({}) {member} to {}{}", upstream.epoch, upstream.member, left.collect::<String>())
        }
        EffectKind::Agent { member, directive } => format!("{name}({}) {member}", directive.epoch()),
        EffectKind::Redirect { record, .. } => format!("{name}({}) {}", record.epoch, record.address),
    }
}

/// Instance ids without their leading zeros.
fn short(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let digits = word.trim_end_matches([',', ')']);
        let hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if hex { format!("#{}{}", digits.trim_start_matches('0'), &word[32..]) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}
