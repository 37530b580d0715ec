//! Asks one DNS server over UDP, as a client would: address and companion TXT record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use regent_types::{Epoch, MemberName};
use tokio::net::UdpSocket;

use super::Observed;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The name.
    #[error("{name:?} is not a domain name")]
    Name {
        /// As given.
        name: String,
    },
    /// The socket.
    #[error("cannot ask: {0}")]
    Io(#[from] std::io::Error),
    /// The answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    /// The server refuses.
    #[error("the server answers {0}")]
    Code(ResponseCode),
}

/// One question, one answer.
pub async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Message, QuestionError> {
    let bad = || QuestionError::Name { name: name.to_owned() };
    let mut qname: Name = name.parse().map_err(|_| bad())?;
    qname.set_fqdn(true);
    let id: u16 = rand::random();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(qname, kind));
    let bytes = message.to_vec().map_err(|_| bad())?;
    let local: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    // Connected: an ICMP refusal is an error at once, and nobody else's datagram is taken for the answer.
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer =
            Message::from_vec(&buffer[..length]).map_err(|error| QuestionError::Answer(error.to_string()))?;
        if answer.metadata.id == id {
            return Ok(answer);
        }
    }
}

/// What the server shows for `name`; `None` when it has no such record.
pub async fn observe(
    server: SocketAddr,
    name: &str,
    want_v6: bool,
) -> Result<Option<Observed>, QuestionError> {
    let kind = if want_v6 { RecordType::AAAA } else { RecordType::A };
    let (address, text) = tokio::try_join!(ask(server, name, kind), ask(server, name, RecordType::TXT))?;
    match address.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Ok(None),
        code => return Err(QuestionError::Code(code)),
    }
    let found = address.answers.iter().find_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    });
    let Some(address) = found else { return Ok(None) };
    let (mut epoch, mut member) = (None, None);
    let texts = text.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt),
        _ => None,
    });
    for part in texts.flat_map(|txt| txt.txt_data.iter()) {
        for word in String::from_utf8_lossy(part).split(' ') {
            if let Some(value) = word.strip_prefix("regent-epoch=") {
                epoch = value.parse().ok().map(Epoch);
            } else if let Some(value) = word.strip_prefix("member=") {
                member = MemberName::new(value).ok();
            }
        }
    }
    Ok(Some(Observed { address, epoch, member }))
}
