//! The wire format: batches in, lists, changes and errors out. Element names and order as in CRRS, LRRS and GC.

use std::fmt::Write as _;

use roxmltree::{Document, Node};

use crate::zone::{Action, Change, Record, canonical};

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|node| node.tag_name().name() == name)
}

fn text(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name).map(|node| node.text().unwrap_or_default().to_owned())
}

/// Reads a `ChangeResourceRecordSetsRequest`. CRRS: "The XML elements in your request must appear in the order listed in
/// the syntax".
pub fn read_batch(body: &str) -> Result<Vec<Change>, String> {
    let document = Document::parse(body).map_err(|error| format!("not XML: {error}"))?;
    let root = document.root_element();
    if root.tag_name().name() != "ChangeResourceRecordSetsRequest"
        || root.tag_name().namespace() != Some(NAMESPACE)
    {
        return Err(format!("unexpected element {:?}", root.tag_name()));
    }
    let batch = child(root, "ChangeBatch").ok_or("ChangeBatch is missing")?;
    if text(batch, "Comment").is_some_and(|comment| comment.len() > 256) {
        return Err("Comment: length at most 256".into());
    }
    let changes = child(batch, "Changes").ok_or("Changes is missing")?;
    changes.children().filter(Node::is_element).map(read_change).collect()
}

const ORDER: [&str; 15] = [
    "Name",
    "Type",
    "SetIdentifier",
    "Weight",
    "Region",
    "GeoLocation",
    "Failover",
    "MultiValueAnswer",
    "TTL",
    "ResourceRecords",
    "AliasTarget",
    "HealthCheckId",
    "TrafficPolicyInstanceId",
    "CidrRoutingConfig",
    "GeoProximityLocation",
];

fn read_change(node: Node<'_, '_>) -> Result<Change, String> {
    let action = match text(node, "Action").as_deref() {
        Some("CREATE") => Action::Create,
        Some("DELETE") => Action::Delete,
        Some("UPSERT") => Action::Upsert,
        other => return Err(format!("Action: {other:?}")),
    };
    let set = child(node, "ResourceRecordSet").ok_or("ResourceRecordSet is missing")?;
    let mut last = 0;
    for element in set.children().filter(Node::is_element) {
        let name = element.tag_name().name();
        let at = ORDER.iter().position(|known| *known == name).ok_or(format!("unknown element {name}"))?;
        if at < last {
            return Err(format!("{name} is out of order"));
        }
        last = at;
    }
    let number = |name: &str| -> Result<Option<u64>, String> {
        let parse = |text: String| text.parse().map_err(|_| format!("{name}: {text:?} is not a number"));
        text(set, name).map(parse).transpose()
    };
    let values = match child(set, "ResourceRecords") {
        None => Vec::new(),
        Some(records) => {
            let values: Vec<String> = records
                .children()
                .filter(Node::is_element)
                .map(|record| text(record, "Value").ok_or("Value is missing"))
                .collect::<Result<_, _>>()?;
            // RRS: "Array Members: Minimum number of 1 item".
            if values.is_empty() {
                return Err("ResourceRecords: at least 1".into());
            }
            values
        }
    };
    let alias = child(set, "AliasTarget").map(|alias| {
        let of = |name| text(alias, name).unwrap_or_default();
        (of("HostedZoneId"), of("DNSName"), of("EvaluateTargetHealth") == "true")
    });
    let record = Record {
        name: canonical(&text(set, "Name").ok_or("Name is missing")?),
        kind: text(set, "Type").ok_or("Type is missing")?,
        ttl_s: number("TTL")?,
        values,
        set_identifier: text(set, "SetIdentifier"),
        weight: number("Weight")?,
        alias,
        health_check: text(set, "HealthCheckId"),
    };
    Ok(Change { action, record })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// FORMAT: other characters than letters, digits, '-', '_' and '.' come back as octal escapes.
fn octal(name: &str) -> String {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || b"-_.".contains(c);
    name.bytes().fold(String::new(), |mut out, c| {
        if plain(&c) {
            out.push(char::from(c));
        } else {
            let _ = write!(out, "\\{c:03o}");
        }
        out
    })
}

fn element(name: &str, value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| format!("<{name}>{}</{name}>", escape(&value.to_string())))
}

fn record(record: &Record) -> String {
    let values: String = record
        .values
        .iter()
        .map(|v| format!("<ResourceRecord>{}</ResourceRecord>", element("Value", Some(v))))
        .collect();
    // Seen (aws-sdk-php issue 56): an alias is listed with an empty ResourceRecords element.
    let values = format!("<ResourceRecords>{values}</ResourceRecords>");
    let alias = record.alias.as_ref().map_or(String::new(), |(zone, name, healthy)| {
        format!(
            "<AliasTarget>{}{}<EvaluateTargetHealth>{healthy}</EvaluateTargetHealth></AliasTarget>",
            element("HostedZoneId", Some(zone)),
            element("DNSName", Some(name))
        )
    });
    format!(
        "<ResourceRecordSet>{}{}{}{}{}{values}{alias}{}</ResourceRecordSet>",
        element("Name", Some(octal(&record.name))),
        element("Type", Some(&record.kind)),
        element("SetIdentifier", record.set_identifier.as_ref()),
        element("Weight", record.weight),
        element("TTL", record.ttl_s),
        element("HealthCheckId", record.health_check.as_ref()),
    )
}

/// LRRS, "Response Syntax".
pub fn list(page: &[Record], next: Option<&Record>, max: usize) -> String {
    let sets: String = page.iter().map(record).collect();
    let next = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |next| {
        format!(
            "<IsTruncated>true</IsTruncated>{}{}{}",
            element("NextRecordName", Some(octal(&next.name))),
            element("NextRecordType", Some(&next.kind)),
            element("NextRecordIdentifier", next.set_identifier.as_ref())
        )
    });
    format!(
        "<?xml version=\"1.0\"?><ListResourceRecordSetsResponse xmlns=\"{NAMESPACE}\"><ResourceRecordSets>{sets}\
         </ResourceRecordSets>{next}<MaxItems>{max}</MaxItems></ListResourceRecordSetsResponse>"
    )
}

/// CRRS and GC, "Response Syntax".
pub fn change(response: &str, id: &str, status: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><{response} xmlns=\"{NAMESPACE}\"><ChangeInfo><Id>/change/{id}</Id>\
         <Status>{status}</Status><SubmittedAt>2026-11-22T20:00:00.000Z</SubmittedAt></ChangeInfo></{response}>"
    )
}

/// Developer Guide, "Errors returned by the API": `ErrorResponse`.
pub fn error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type>{}{}</Error>\
         <RequestId>fake</RequestId></ErrorResponse>",
        element("Code", Some(code)),
        element("Message", Some(message))
    )
}

/// CRRS, "InvalidChangeBatch": the error of its own, with a list of messages.
pub fn invalid_change_batch(messages: &[String]) -> String {
    let messages: String = messages.iter().map(|message| element("Message", Some(message))).collect();
    format!(
        "<?xml version=\"1.0\"?><InvalidChangeBatch xmlns=\"{NAMESPACE}\"><Messages>{messages}</Messages>\
         <RequestId>fake</RequestId></InvalidChangeBatch>"
    )
}
