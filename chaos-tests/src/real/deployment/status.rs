//! The cluster's status as `regentctl status --output json` gives it, with the questions that scenarios ask.

use std::fmt;

use serde_json::Value;

/// One answer.
#[derive(Clone, Debug)]
pub struct Status {
    json: Value,
}

impl Status {
    pub(super) fn new(json: Value) -> Self {
        Self { json }
    }

    /// Everything.
    pub fn json(&self) -> &Value {
        &self.json
    }

    fn cluster(&self) -> &Value {
        &self.json["clusters"][0]
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        self.cluster()["epoch"].as_u64().unwrap_or(0)
    }

    /// Every epoch up to this one is fenced.
    pub fn fenced_through(&self) -> u64 {
        self.cluster()["fenced_through"].as_u64().unwrap_or(0)
    }

    /// The appointed primary.
    pub fn primary(&self) -> Option<&str> {
        self.cluster()["primary"].as_str()
    }

    /// The epoch of the DNS record.
    pub fn dns_epoch(&self) -> Option<u64> {
        self.cluster()["dns"]["epoch"].as_u64()
    }

    /// Whether no operation runs.
    pub fn idle(&self) -> bool {
        self.cluster()["operation"].is_null()
    }

    /// Kind and step of the running operation.
    pub fn operation(&self) -> Option<(&str, &str)> {
        let operation = &self.cluster()["operation"];
        Some((operation["kind"].as_str()?, operation["step"].as_str()?))
    }

    /// A member's part; null when there is none.
    pub fn member(&self, name: &str) -> &Value {
        let members = self.cluster()["members"].as_array();
        members.and_then(|all| all.iter().find(|member| member["name"] == name)).unwrap_or(&Value::Null)
    }

    /// Whether the member is confirmed to follow the primary closely.
    pub fn sync_confirmed(&self, member: &str) -> bool {
        self.member(member)["sync_confirmed"] == true
    }

    /// The leader's region.
    pub fn leader_region(&self) -> Option<&str> {
        let all = self.json["coordinators"].as_array()?;
        all.iter().find(|one| one["role"] == "leader").and_then(|one| one["region"].as_str())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#}", self.json)
    }
}
