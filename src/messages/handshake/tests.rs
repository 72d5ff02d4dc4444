use super::*;
use crate::messages::opcode::Daemon;

const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut at = 0;
    while at < 32 {
        key[at] = at as u8;
        at += 1;
    }
    key
};
const OTHER: [u8; 32] = [0xee; 32];

fn node() -> NodeIdentity {
    NodeIdentity {
        kind: Daemon::Storage,
        group: "books".into(),
        syncgroup: "a".into(),
        machine: 1,
        instance: Uuid::new([2; 16]),
        version: "1".into(),
    }
}

fn client(keys: &[[u8; 32]]) -> ClientHandshake<[u8; 32]> {
    ClientHandshake::new(Role::Client, "test", [9; 16], keys.to_vec(), [0xc1; 32])
}

/// Both ends against each other; the server has `server_keys` for every role.
fn meet(client_keys: &[[u8; 32]], server_keys: &[[u8; 32]]) -> Result<(Session, Session), Refusal> {
    let mut client = client(client_keys);
    let mut server = ServerHandshake::new(node(), [0x51; 32]);
    let check = |_| if server_keys.is_empty() { KeyCheck::Open } else { KeyCheck::Required };
    let (answer, begun) = server.on_hello(client.hello(), check, 5)?;
    match client.on_hello_answer(answer)? {
        Next::Begin(session) => {
            Ok((session, begun.ok_or_else(|| Refusal::new(ErrorCode::Failed, "server waits", ""))?))
        }
        Next::Prove(auth) => {
            assert!(begun.is_none(), "a session before the proof");
            let (answer, at_server) = server.on_auth(&auth, |_| server_keys.to_vec())?;
            Ok((client.on_auth_answer(&answer)?, at_server))
        }
    }
}

#[test]
fn both_ends_agree() {
    for keys in [&[][..], &[KEY][..]] {
        let (client, server) = meet(keys, keys).expect("they know each other");
        assert_eq!(client, server);
        assert_eq!((client.role, client.minor), (Role::Client, MINOR));
    }
}

#[test]
fn rotation_of_keys_locks_nobody_out() {
    for (client, server) in [
        (&[KEY][..], &[OTHER, KEY][..]),
        (&[OTHER, KEY][..], &[KEY][..]),
        (&[KEY, OTHER][..], &[OTHER, [7; 32]][..]),
    ] {
        meet(client, server).expect("one key in common");
    }
}

#[test]
fn a_wrong_key_gets_no_session() {
    let refusal = meet(&[OTHER], &[KEY]).expect_err("wrong key");
    assert_eq!(refusal.code, ErrorCode::Unauthorized);
    assert!(!refusal.message.contains("ee"), "no secrets in messages");
}

#[test]
fn a_missing_key_on_either_end_is_refused() {
    assert_eq!(meet(&[], &[KEY]).expect_err("client without").code, ErrorCode::Unauthorized);
    // A server that suddenly asks for no key may be anybody.
    assert_eq!(meet(&[KEY], &[]).expect_err("server without").code, ErrorCode::Unauthorized);
}

#[test]
fn a_daemon_is_not_told_of_an_option_that_it_does_not_have() {
    for role in Role::ALL {
        for refusal in [Refusal::no_key(role), Refusal::wrong_key(role)] {
            let of_daemons = refusal.remedy.contains("`peer` line");
            assert_eq!(of_daemons, role == Role::Peer, "{role}: {}", refusal.remedy);
            assert_ne!(of_daemons, refusal.remedy.contains("--key-file"), "{role}");
        }
    }
}

#[test]
fn a_role_without_a_key_is_shut_where_others_have_one() {
    let mut server = ServerHandshake::new(node(), [1; 32]);
    let refusal = server.on_hello(client(&[]).hello(), |_| KeyCheck::Shut, 0).expect_err("shut");
    assert_eq!(refusal.code, ErrorCode::Unauthorized);
}

#[test]
fn the_proof_is_what_the_document_says() {
    // Worked out with another HMAC implementation; the same figures are in docs/PROTOCOL.md.
    let mut client = client(&[KEY]);
    let mut server = ServerHandshake::new(node(), [0x51; 32]);
    let (answer, _) =
        server.on_hello(client.hello(), |_| KeyCheck::Required, 0).expect("challenged");
    let Ok(Next::Prove(auth)) = client.on_hello_answer(answer) else { panic!("no proof") };
    let hex = |proof: &Proof| data_encoding::HEXLOWER.encode(&proof[..]);
    assert_eq!(
        hex(&auth.proof),
        "c4f11e9b5507dd56d6f8a5449014d6982126199cedd5bf832f9c08d2fa34165b"
    );
    let (answer, _) = server.on_auth(&auth, |_| vec![KEY]).expect("proven");
    assert_eq!(
        hex(&answer.proof),
        "3f953a02881e0b5d0ad73ee52a49f287ab503f5bd9d8aa6d6eee0e61c3e243d8"
    );
}

#[test]
fn a_server_without_the_key_is_found_out() {
    let mut client = client(&[KEY]);
    let mut impostor = ServerHandshake::new(node(), [4; 32]);
    let (answer, _) =
        impostor.on_hello(client.hello(), |_| KeyCheck::Required, 0).expect("challenged");
    let Ok(Next::Prove(auth)) = client.on_hello_answer(answer) else { panic!("no proof") };
    // All that it has is the client's own proof.
    let refusal = client.on_auth_answer(&AuthAnswer { proof: auth.proof }).expect_err("reflected");
    assert_eq!(refusal.code, ErrorCode::Unauthorized);
}

#[test]
fn a_recorded_proof_opens_no_second_connection_and_no_other_role() {
    let mut honest = client(&[KEY]);
    let mut server = ServerHandshake::new(node(), [0x51; 32]);
    let (answer, _) =
        server.on_hello(honest.hello(), |_| KeyCheck::Required, 0).expect("challenged");
    let Ok(Next::Prove(auth)) = honest.on_hello_answer(answer) else { panic!("no proof") };

    let mut second = ServerHandshake::new(node(), [0x52; 32]);
    second.on_hello(honest.hello(), |_| KeyCheck::Required, 0).expect("challenged");
    assert!(second.on_auth(&auth, |_| vec![KEY]).is_err(), "another nonce");

    let mut third = ServerHandshake::new(node(), [0x51; 32]);
    let hello = Hello { role: Role::Admin as u8, ..honest.hello().clone() };
    third.on_hello(&hello, |_| KeyCheck::Required, 0).expect("challenged");
    assert!(third.on_auth(&auth, |_| vec![KEY]).is_err(), "another role");
}

#[test]
fn a_step_out_of_order_is_refused() {
    let auth = Auth { proof: Proof::new([0; 32]), second: None };
    let mut server = ServerHandshake::new(node(), [1; 32]);
    assert!(server.on_auth(&auth, |_| vec![KEY]).is_err(), "auth first");
    let mut server = ServerHandshake::new(node(), [1; 32]);
    server.on_hello(client(&[]).hello(), |_| KeyCheck::Required, 0).expect("challenged");
    assert!(server.on_hello(client(&[]).hello(), |_| KeyCheck::Open, 0).is_err(), "hello twice");
    // And after a failed step there is no second guess.
    let mut server = ServerHandshake::new(node(), [1; 32]);
    server.on_hello(client(&[]).hello(), |_| KeyCheck::Required, 0).expect("challenged");
    assert!(server.on_auth(&auth, |_| vec![KEY]).is_err());
    let refusal = server.on_auth(&auth, |_| vec![KEY]).expect_err("over");
    assert_eq!(refusal.code, ErrorCode::BadRequest);
}

#[test]
fn neighbouring_minors_talk_and_other_majors_do_not() {
    assert_eq!(agree(MAJOR, MINOR), Ok(MINOR));
    assert_eq!(agree(MAJOR, MINOR + 1), Ok(MINOR));
    assert_eq!(agree(MAJOR, MINOR + 2).expect_err("too far").code, ErrorCode::Version);
    assert_eq!(agree(MAJOR + 1, MINOR).expect_err("newer").code, ErrorCode::Version);
    assert_eq!(agree(MAJOR - 1, MINOR).expect_err("older").code, ErrorCode::Version);
}

#[test]
fn nonsense_in_hello_is_refused() {
    let good = client(&[]).hello().clone();
    for bad in [
        Hello { role: 0, ..good.clone() },
        Hello { role: 200, ..good.clone() },
        Hello { major: 9, ..good.clone() },
        Hello { name: "x".repeat(NAME_MAX + 1), ..good },
    ] {
        let mut server = ServerHandshake::new(node(), [1; 32]);
        assert!(server.on_hello(&bad, |_| KeyCheck::Open, 0).is_err(), "{bad:?}");
    }
}
