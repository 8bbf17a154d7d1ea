//! Names of others: upstreams, their order, and the cache.

use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use jaco_testkit::builders::{deployment, service};

use super::support::upstream::{absent, empty, found};
use super::support::{Rig, Upstream, addresses, question, with_edns};

const A: RecordType = RecordType::A;

fn code(reply: &Message) -> ResponseCode {
    assert!(!reply.authoritative);
    reply.response_code
}

#[test]
fn regression_external_names_time_out_in_containers() {
    let (dead, alive) = (Upstream::dead(), Upstream::knowing([192, 0, 2, 1], 60));
    let rig = Rig::new(&[dead.address, alive.address]);
    let client = rig.client("web");
    for number in 0..20 {
        let addresses = client.addresses(&format!("host{number}.example.com"));
        assert_eq!(addresses.len(), 1);
    }
    // After its first failure it is asked last, and the other one always answers.
    assert!(dead.asked() < 20, "asked {} times", dead.asked());
    assert_eq!(alive.asked(), 20);
}

#[test]
fn a_code_that_says_not_me_moves_on_and_nxdomain_is_final() {
    for moves_on in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
    ] {
        let (first, second) = (
            Upstream::saying(moves_on),
            Upstream::knowing([192, 0, 2, 1], 60),
        );
        let rig = Rig::new(&[first.address, second.address]);
        assert_eq!(rig.client("web").addresses("example.com").len(), 1);
        assert_eq!((first.asked(), second.asked()), (1, 1), "{moves_on}");
        // It answered: it keeps its place.
        assert_eq!(rig.client("web").addresses("other.example.com").len(), 1);
        assert_eq!(first.asked(), 2, "{moves_on}");
    }
    let first = Upstream::saying(ResponseCode::NXDomain);
    let second = Upstream::knowing([192, 0, 2, 1], 60);
    let rig = Rig::new(&[first.address, second.address]);
    let reply = rig.client("web").ask("example.com", A);
    assert_eq!(code(&reply), ResponseCode::NXDomain);
    assert_eq!(second.asked(), 0);
}

#[test]
fn a_closed_port_is_passed_over() {
    let closed = Upstream::closed();
    let alive = Upstream::knowing([192, 0, 2, 1], 60);
    let rig = Rig::new(&[closed, alive.address]);
    assert_eq!(rig.client("web").addresses("example.com").len(), 1);
}

#[test]
fn without_an_answer_it_is_servfail_and_never_nxdomain() {
    let dead = [Upstream::dead(), Upstream::dead()];
    let rig = Rig::new(&[dead[0].address, dead[1].address]);
    let client = rig.client("web");
    assert_eq!(code(&client.ask("example.com", A)), ResponseCode::ServFail);
    assert_eq!(code(&client.tcp("example.com", A)), ResponseCode::ServFail);
    assert!(dead.iter().all(|upstream| upstream.asked() == 2));
    assert_eq!(client.addresses("web").len(), 2);
}

#[test]
fn regression_no_upstream_resolvers() {
    let rig = Rig::new(&[]);
    let client = rig.client("web");
    assert_eq!(code(&client.ask("example.com", A)), ResponseCode::ServFail);
    assert_eq!(client.addresses("web").len(), 2);
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let upstream = Upstream::answering(|question, over_tcp| {
        let mut answer = found(question, [192, 0, 2, 1], 60);
        answer.metadata.truncation = !over_tcp;
        if over_tcp {
            answer.answers = vec![answer.answers[0].clone(); 100];
        }
        vec![answer]
    });
    let rig = Rig::new(&[upstream.address]);
    let whole = rig.client("web").tcp("example.com", A);
    assert_eq!(whole.answers.len(), 100);
    let cut = rig.client("web").ask("example.com", A);
    assert!(cut.truncation && cut.answers.len() < 100);
    assert_eq!(upstream.asked(), 2, "once over each, then from the cache");
}

#[test]
fn what_was_answered_is_kept_whatever_the_case() {
    let upstream = Upstream::knowing([192, 0, 2, 1], 1_000);
    let rig = Rig::new(&[upstream.address]);
    for name in ["example.com", "EXAMPLE.com", "example.com"] {
        let reply = rig.client("web").ask(name, A);
        assert_eq!(addresses(&reply).len(), 1);
        assert!((900..=1_000).contains(&reply.answers[0].ttl));
        assert!(
            reply.queries[0]
                .name
                .eq_case(&question(name, A).queries[0].name)
        );
    }
    assert_eq!(upstream.asked(), 1);
    rig.client("web").ask("example.com", RecordType::MX);
    assert_eq!(upstream.asked(), 2);
}

#[test]
fn that_there_is_nothing_is_kept_too_if_it_says_for_how_long() {
    for denial in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let said = move |question: &Message, _| vec![absent(question, denial, 60)];
        let (upstream, silent) = (Upstream::answering(said), Upstream::saying(denial));
        for (upstream, asked) in [(upstream, 1), (silent, 3)] {
            let rig = Rig::new(&[upstream.address]);
            for _ in 0..3 {
                assert_eq!(code(&rig.client("web").ask("example.com", A)), denial);
            }
            assert_eq!(upstream.asked(), asked, "{denial}");
        }
    }
    let zero = Upstream::knowing([192, 0, 2, 1], 0);
    let rig = Rig::new(&[zero.address]);
    for _ in 0..2 {
        assert_eq!(rig.client("web").addresses("example.com").len(), 1);
    }
    assert_eq!(zero.asked(), 2, "a TTL of zero is not kept");
}

#[test]
fn an_answer_to_another_question_is_passed_over() {
    let upstream = Upstream::answering(|question, _| {
        let mut forged = found(question, [6, 6, 6, 6], 60);
        forged.metadata.id = question.id.wrapping_add(1);
        let mut other = found(question, [6, 6, 6, 6], 60);
        other.queries = vec![Query::query(Name::from_ascii("other.com.").unwrap(), A)];
        vec![forged, other, found(question, [192, 0, 2, 1], 60)]
    });
    let rig = Rig::new(&[upstream.address]);
    let found = rig.client("web").addresses("example.com");
    assert_eq!(found, [std::net::Ipv4Addr::new(192, 0, 2, 1)]);
}

#[test]
fn both_families_are_asked_for_at_once() {
    let waiting: Arc<Mutex<Option<Message>>> = Arc::default();
    let kept = Arc::clone(&waiting);
    // The first question has no answer before the second has come.
    let upstream = Upstream::answering(move |question, _| {
        let mut waiting = kept.lock().unwrap();
        match waiting.take() {
            None => {
                *waiting = Some(question.clone());
                Vec::new()
            }
            Some(_) => vec![empty(question, ResponseCode::NoError)],
        }
    });
    let rig = Rig::new(&[upstream.address]);
    let client = rig.client("web");
    let questions = [A, RecordType::AAAA].map(|kind| question("example.com", kind));
    for question in &questions {
        client.send(&question.to_vec().unwrap());
    }
    assert_eq!(
        code(&client.receive(questions[1].id)),
        ResponseCode::NoError
    );
}

#[test]
fn names_of_replicas_never_leave_the_node() {
    let upstream = Upstream::knowing([192, 0, 2, 1], 60);
    let rig = Rig::of(
        [
            deployment("shop", [("web", service(1, "a"))]),
            deployment("blog", [("api", service(1, "a"))]),
        ],
        &[upstream.address],
    );
    let names = [
        "web",
        "api",
        "nobody",
        "web.blog.jaco.internal",
        "jaco.internal",
    ];
    for name in names.into_iter().chain(["1.1.77.127.in-addr.arpa"]) {
        for kind in [A, RecordType::AAAA, RecordType::PTR, RecordType::SOA] {
            if kind != RecordType::PTR && name.ends_with("arpa") {
                continue;
            }
            rig.client("web").ask(name, kind);
        }
    }
    assert_eq!(upstream.asked(), 0);
}

#[test]
fn one_container_does_not_use_up_the_forwarder() {
    let upstream = Upstream::answering(|question, _| {
        let name = question.queries[0].name.to_ascii();
        match name.starts_with("stuck") {
            true => Vec::new(),
            false => vec![found(question, [192, 0, 2, 1], 60)],
        }
    });
    let rig = Rig::of(
        [deployment(
            "shop",
            [("web", service(1, "a")), ("api", service(1, "a"))],
        )],
        &[upstream.address],
    );
    let (attacker, other) = (rig.client("web"), rig.client("api"));
    for number in 0..600 {
        let stuck = question(&format!("stuck{number}.example.com"), A);
        attacker.send(&stuck.to_vec().unwrap());
        if number % 50 == 0 {
            let name = format!("good{number}.example.com");
            assert_eq!(other.addresses(&name).len(), 1);
        }
    }
    // Most of them were never asked.
    assert!(upstream.asked() < 600, "asked {} times", upstream.asked());
}

#[test]
fn a_question_that_many_ask_at_once_is_on_its_way_once() {
    let upstream = Upstream::answering(|question, _| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        vec![found(question, [192, 0, 2, 1], 0)]
    });
    let rig = Rig::new(&[upstream.address]);
    let client = rig.client("web");
    let questions: Vec<Message> = (0..40).map(|_| question("same.example.com", A)).collect();
    for question in &questions {
        client.send(&question.to_vec().unwrap());
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < questions.len() {
        let reply = client.receive_any();
        assert_eq!(addresses(&reply).len(), 1);
        answered.insert(reply.id);
    }
    assert!(upstream.asked() <= 2, "asked {} times", upstream.asked());
}

#[test]
fn a_server_from_before_edns_is_asked_without_it() {
    let upstream = Upstream::answering(|question, _| match question.edns.is_some() {
        true => vec![empty(question, ResponseCode::FormErr)],
        false => vec![found(question, [192, 0, 2, 1], 60)],
    });
    let rig = Rig::new(&[upstream.address]);
    let asked = with_edns(question("old.example.com", A), 1_232);
    let reply = rig.client("web").exchange(&asked);
    assert_eq!(addresses(&reply).len(), 1);
    assert_eq!(upstream.asked(), 2);
}
