//! A name server on loopback, which says what the test wants.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

/// What each name is, one list of addresses for each time that it is asked for; the last one stays.
type Zone = HashMap<String, Vec<Vec<IpAddr>>>;

pub(crate) struct Names {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
}

impl Names {
    /// Serves names with the same addresses each time.
    pub(crate) async fn serve(names: &[(&str, &[&str])]) -> Self {
        let zone = names.iter().map(|(name, addresses)| ((*name).to_owned(), vec![parse(addresses)]));
        Self::start(zone.collect()).await
    }

    /// Serves one name with other addresses each time.
    pub(crate) async fn rebinding(name: &str, answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|addresses| parse(addresses)).collect();
        Self::start(HashMap::from([(name.to_owned(), answers)])).await
    }

    async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        tokio::spawn(answer_all(socket, Mutex::new(zone), Arc::clone(&questions)));
        Self { address, questions }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often an IPv4 address was asked for.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

async fn answer_all(socket: UdpSocket, zone: Mutex<Zone>, questions: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let query = question.queries[0].clone();
        let is_v4 = query.query_type() == RecordType::A;
        questions.fetch_add(usize::from(is_v4), Ordering::SeqCst);
        let reply = answer(question.metadata.id, query, &mut zone.lock().unwrap());
        socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
    }
}

fn answer(id: u16, query: Query, zone: &mut Zone) -> Message {
    let name = query.name().to_ascii().to_lowercase();
    let is_v4 = query.query_type() == RecordType::A;
    let mut reply = Message::response(id, OpCode::Query);
    reply.metadata.recursion_available = true;
    match zone.get_mut(name.trim_end_matches('.')) {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(answers) => {
            let wanted = answers[0].iter().filter(|address| address.is_ipv4() == is_v4);
            for address in wanted {
                reply.add_answer(Record::from_rdata(query.name().clone(), 300, RData::from(*address)));
            }
            if is_v4 && answers.len() > 1 {
                answers.remove(0);
            }
        }
    }
    reply.add_query(query);
    reply
}
