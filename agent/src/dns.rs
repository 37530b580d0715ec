//! A stub resolver for `validate`: asks the configured servers directly, past every cache, as an independent client would.
//! Without servers the system's resolver is asked.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{net::UdpSocket, time::timeout};

const LIMIT: Duration = Duration::from_secs(2);

/// Addresses of `name`; an address resolves to itself.
pub async fn resolve(servers: &[SocketAddr], name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    if servers.is_empty() {
        let found = timeout(LIMIT, tokio::net::lookup_host((name, 0))).await;
        let found = found.map_err(|_| format!("{name}: the system's resolver has not answered"))?;
        return Ok(found.map_err(|e| format!("{name}: {e}"))?.map(|a| a.ip()).collect());
    }
    let mut failures = vec![];
    for server in servers {
        match ask(*server, name, RecordType::A).await {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => failures.push(format!("{server}: no address")),
            Err(why) => failures.push(format!("{server}: {why}")),
        }
    }
    Err(format!("{name} cannot be resolved: {}", failures.join("; ")))
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, String> {
    let mut name: Name = name.parse().map_err(|e| format!("not a name: {e}"))?;
    name.set_fqdn(true);
    let mut request = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(name, kind));
    let id = request.metadata.id;
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let exchange = async {
        let socket = UdpSocket::bind(local).await.map_err(|e| e.to_string())?;
        socket.connect(server).await.map_err(|e| e.to_string())?;
        let bytes = request.to_vec().map_err(|e| e.to_string())?;
        socket.send(&bytes).await.map_err(|e| e.to_string())?;
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(|e| e.to_string())?;
            match Message::from_vec(&buffer[..length]) {
                Ok(answer) if answer.metadata.id == id => return Ok(answer),
                // Not an answer to this question: somebody else's, or damaged.
                _ => {}
            }
        }
    };
    let answer: Message = timeout(LIMIT, exchange)
        .await
        .map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?
        .map_err(|e: String| e)?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(answer.metadata.response_code.to_string());
    }
    Ok(answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Record, rdata};

    /// Answers one question: first with a stranger's id, then with `code` and these addresses.
    async fn server(code: ResponseCode, addresses: &'static [[u8; 4]]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let name = question.queries[0].name().clone();
            let stranger = Message::response(question.metadata.id.wrapping_add(1), OpCode::Query);
            socket.send_to(&stranger.to_vec().unwrap(), from).await.unwrap();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.metadata.response_code = code;
            for octets in addresses {
                let data = RData::A(rdata::A::from(std::net::Ipv4Addr::from(*octets)));
                answer.add_answer(Record::from_rdata(name.clone(), 5, data));
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        });
        at
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_has_no_answer() {
        let refuses = server(ResponseCode::ServFail, &[]).await;
        let answers = server(ResponseCode::NoError, &[[10, 0, 0, 7]]).await;
        let found = resolve(&[refuses, answers], "db.example.internal").await.unwrap();
        assert_eq!(found, [IpAddr::from([10, 0, 0, 7])]);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error_that_names_the_servers() {
        let empty = server(ResponseCode::NXDomain, &[]).await;
        let error = resolve(&[empty], "db.example.internal").await.unwrap_err();
        assert!(error.contains("db.example.internal") && error.contains(&empty.to_string()), "{error}");
        assert_eq!(resolve(&[], "10.0.0.1").await, Ok(vec![IpAddr::from([10, 0, 0, 1])]));
    }
}
