//! Every state and every message.

use super::*;

/// Every message to a client in every state: unknown, invited, ready, left, training, accepted,
/// summed, stopped, timed out.
#[test]
fn every_state_answers_every_message() {
    use Refusal::{Duplicate, Late, NotTraining, OtherRound, Surplus, Unknown};
    // The script brings the client of the row into the state of the row.
    type Script = fn(&mut Server);
    let nothing: Script = |_| {};
    let invited: Script = |server| server.begin(0);
    let ready: Script = |server| {
        server.begin(0);
        server.tell(0, Event::Ready(id(0)));
    };
    let left: Script = |server| {
        server.begin(0);
        server.tell(0, Event::Dropped(id(0)));
    };
    let training: Script = |server| {
        server.begin(0);
        server.all_ready(0);
    };
    let accepted: Script = |server| {
        server.begin(0);
        server.all_ready(0);
        server.tell(0, Event::Reported(report(0)));
    };
    let summed: Script = |server| {
        server.begin(0);
        server.all_ready(0);
        server.tell(0, Event::Update(&update(0)));
    };
    let stopped: Script = |server| {
        server.begin(0);
        server.all_ready(0);
        for client in 1..5 {
            server.tell(0, Event::Reported(report(client)));
        }
    };
    let timed_out: Script = |server| {
        server.begin(0);
        server.all_ready(0);
        server.tell(0, Event::Reported(report(1)));
        server.handle_timeout(at(200)).unwrap();
    };
    let invitation_over: Script = |server| {
        server.begin(0);
        for client in 1..N {
            server.tell(0, Event::Ready(id(client)));
        }
        server.handle_timeout(at(50)).unwrap();
    };
    let ended: Script = |server| {
        server.begin(0);
        server.all_ready(0);
        for client in 0..4 {
            server.tell(0, Event::Update(&update(client)));
        }
        assert_eq!(server.phase(), Phase::Idle);
    };
    let noted = Answer::Noted;
    // (state, script, client, answers to ready, dropped or failed, reported or update)
    let cases: [(&str, Script, u64, [Answer; 3]); 12] = [
        ("idle", nothing, 0, [refused(OtherRound); 3]),
        ("unknown", invited, 99, [refused(Unknown); 3]),
        ("invited", invited, 0, [noted, noted, refused(NotTraining)]),
        (
            "ready",
            ready,
            0,
            [refused(Duplicate), noted, refused(NotTraining)],
        ),
        (
            "left",
            left,
            0,
            [
                refused(Duplicate),
                refused(NotTraining),
                refused(NotTraining),
            ],
        ),
        (
            "training",
            training,
            0,
            [refused(Duplicate), noted, ACCEPTED],
        ),
        (
            "accepted",
            accepted,
            0,
            [refused(Duplicate), noted, refused(Duplicate)],
        ),
        ("summed", summed, 0, [refused(Duplicate); 3]),
        (
            "stopped",
            stopped,
            0,
            [refused(Duplicate), refused(NotTraining), refused(Surplus)],
        ),
        (
            "timed out",
            timed_out,
            0,
            [refused(Late), refused(NotTraining), refused(Late)],
        ),
        (
            "no answer",
            invitation_over,
            0,
            [refused(Late), refused(NotTraining), refused(Late)],
        ),
        ("ended", ended, 0, [refused(OtherRound); 3]),
    ];
    for (state, script, client, [to_ready, to_leave, to_report]) in cases {
        let report = report(client);
        let update = update(client);
        let events: [(Ev<'_>, Answer); 5] = [
            (Event::Ready(id(client)), to_ready),
            (Event::Dropped(id(client)), to_leave),
            (Event::Failed(id(client)), to_leave),
            (Event::Reported(report), to_report),
            (Event::Update(&update), to_report),
        ];
        for (event, expected) in events {
            let name = format!("{event:?} to a client that is {state}");
            let mut server = server(4, Stragglers::Drop, settings(1, Some(50), Some(100)));
            script(&mut server);
            let phase = server.phase();
            let before = server.global().digest();
            let now = server.now;
            assert_eq!(server.tell(now.0, event), expected, "{name}");
            if let Answer::Refused(_) = expected {
                assert_eq!(server.phase(), phase, "{name}");
                assert_eq!(server.global().digest(), before, "{name}");
            }
        }
        // Whatever the state, the round can be given up, and the next one can begin.
        let mut server = server(4, Stragglers::Drop, settings(1, Some(50), Some(100)));
        script(&mut server);
        let (was, before) = (server.phase(), server.global().digest());
        server.abort(at(300)).unwrap();
        assert_eq!(server.phase(), Phase::Idle);
        assert_eq!(
            server.global().digest(),
            before,
            "an aborted round moves nothing"
        );
        let record = server.record();
        if was != Phase::Idle {
            assert_eq!(record.unwrap().outcome, Outcome::Aborted, "{state}");
            check(&record.unwrap());
        }
        let stops = server.sent(Message::Stop);
        server.begin(301);
        assert_eq!(server.phase(), Phase::Selecting, "{state}, {stops:?}");
    }
}
