//! Tests of the expiry queue: rounding, the two steps, shifts, and a model.

use super::*;

const TICK_MS: u32 = 2_000;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn expire(queue: &mut ExpiryQueue, now: Instant) -> Vec<i64> {
    let mut expired = Vec::new();
    if let Some(due) = queue.due(now) {
        queue.expire(due, &mut expired);
    }
    expired.into_iter().map(|session| session.0).collect()
}

/// A session touched at `now_ms` must live until just before `expires_ms`.
#[track_caller]
fn check(now_ms: u64, timeout_ms: u32, expires_ms: u64) {
    let mut queue = ExpiryQueue::new(TICK_MS);
    queue.track(at(now_ms), SessionId(7), timeout_ms);
    assert_eq!(queue.next_timeout(), Some(at(expires_ms)));
    assert_eq!(queue.due(Instant::from_nanos(expires_ms * 1_000_000 - 1)), None);
    assert_eq!(expire(&mut queue, at(expires_ms)), [7]);
    assert!(queue.is_empty());
    assert_eq!(queue.next_timeout(), None);
}

#[test]
fn a_deadline_is_rounded_up_to_the_next_tick() {
    check(0, 4_000, 6_000);
    check(1, 4_000, 6_000);
    check(1_999, 4_000, 6_000);
    check(2_000, 4_000, 8_000);
    check(500, 0, 2_000);
    check(0, u32::MAX, 4_294_968_000);
}

#[test]
fn a_touch_moves_the_deadline_and_a_late_report_does_not_move_it_back() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    queue.track(at(0), SessionId(1), 4_000);
    assert!(queue.touch(at(3_000), SessionId(1)));
    assert_eq!(queue.next_timeout(), Some(at(8_000)));
    assert!(queue.touch(at(100), SessionId(1)));
    assert_eq!(queue.next_timeout(), Some(at(8_000)));
    assert!(!queue.touch(at(100), SessionId(2)));
}

#[test]
fn another_timeout_can_bring_the_deadline_nearer() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    queue.track(at(0), SessionId(1), 40_000);
    queue.track(at(1_000), SessionId(1), 4_000);
    assert_eq!(queue.next_timeout(), Some(at(6_000)));
    assert!(queue.touch(at(2_000), SessionId(1)));
    assert_eq!(queue.next_timeout(), Some(at(8_000)));
}

#[test]
fn a_session_that_spoke_between_the_steps_lives() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    for session in 1..=3 {
        queue.track(at(0), SessionId(session), 4_000);
    }
    let due = queue.due(at(6_100)).unwrap();
    assert!(queue.touch(at(5_900), SessionId(2)));
    let mut expired = Vec::new();
    queue.expire(due, &mut expired);
    assert_eq!(expired, [SessionId(1), SessionId(3)]);
    assert!(queue.contains(SessionId(2)));
    assert!(!queue.touch(at(6_200), SessionId(1)));
}

#[test]
fn what_becomes_due_between_the_steps_waits_for_a_judgement_of_its_own() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    queue.track(at(0), SessionId(1), 4_000);
    queue.track(at(2_000), SessionId(2), 4_000);
    let first = queue.due(at(6_000)).unwrap();
    assert_eq!(queue.due(at(7_999)), None, "one judgement at a time for one deadline");
    assert_eq!(queue.next_timeout(), Some(at(8_000)));
    let mut expired = Vec::new();
    queue.expire(first, &mut expired);
    assert_eq!(expired, [SessionId(1)]);
    assert_eq!(expire(&mut queue, at(8_000)), [2]);
}

#[test]
fn a_removed_session_is_not_judged() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    for session in 1..=4 {
        queue.track(at(0), SessionId(session), 4_000);
    }
    let due = queue.due(at(6_000)).unwrap();
    assert!(queue.remove(SessionId(1)) && queue.remove(SessionId(3)) && queue.remove(SessionId(4)));
    assert!(!queue.remove(SessionId(4)));
    let mut expired = Vec::new();
    queue.expire(due, &mut expired);
    assert_eq!(expired, [SessionId(2)]);
}

#[test]
fn a_jump_of_the_clock_shifts_every_deadline() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    queue.track(at(1_000), SessionId(1), 4_000);
    queue.shift(Duration::from_millis(10_500));
    assert_eq!(queue.next_timeout(), Some(at(16_500)));
    assert_eq!(queue.due(at(16_499)), None);
    queue.track(at(11_500), SessionId(2), 4_000);
    assert_eq!(expire(&mut queue, at(16_500)), [1, 2]);
}

#[test]
fn extreme_times_do_not_overflow() {
    let mut queue = ExpiryQueue::new(1);
    queue.track(Instant::from_nanos(u64::MAX), SessionId(1), u32::MAX);
    queue.shift(Duration::MAX);
    assert!(queue.next_timeout().is_some());
    assert_eq!(queue.due(Instant::ZERO), None);
}

#[test]
fn deadlines_list_the_sessions_of_each() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    for session in [3, 1, 2] {
        queue.track(at(0), SessionId(session), 4_000);
    }
    queue.track(at(0), SessionId(9), 20_000);
    let listed: Vec<(u64, Vec<i64>)> = queue
        .deadlines()
        .map(|(time, sessions)| (time.as_millis(), sessions.map(|id| id.0).collect()))
        .collect();
    assert_eq!(listed, [(6_000, vec![3, 1, 2]), (22_000, vec![9])]);
}

#[test]
fn random_use_agrees_with_a_model() {
    let mut queue = ExpiryQueue::new(100);
    // Session -> (deadline in ms, timeout in ms).
    let mut model: BTreeMap<i64, (u64, u32)> = BTreeMap::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let deadline = |now: u64, timeout: u32| ((now + u64::from(timeout)) / 100 + 1) * 100;
    let mut now = 0;
    for _ in 0..50_000 {
        now += random(20);
        let session = random(64).cast_signed();
        match random(5) {
            0 => {
                let timeout = random(900) as u32;
                queue.track(at(now), SessionId(session), timeout);
                model.insert(session, (deadline(now, timeout), timeout));
            }
            1 | 2 => {
                let known = model.get_mut(&session);
                assert_eq!(queue.touch(at(now), SessionId(session)), known.is_some());
                if let Some((time, timeout)) = known {
                    *time = deadline(now, *timeout).max(*time);
                }
            }
            3 => {
                let known = model.remove(&session).is_some();
                assert_eq!(queue.remove(SessionId(session)), known);
            }
            _ => {
                let mut expired = expire(&mut queue, at(now));
                expired.sort_unstable();
                let due = model.extract_if(.., |_, (time, _)| *time <= now);
                assert_eq!(expired, due.map(|(session, _)| session).collect::<Vec<_>>());
            }
        }
        assert_eq!(queue.len(), model.len());
        let next = model.values().map(|&(time, _)| at(time)).min();
        assert_eq!(queue.next_timeout(), next);
    }
}

#[test]
fn a_session_costs_less_than_a_hundred_bytes() {
    let mut queue = ExpiryQueue::new(TICK_MS);
    // One more than fits a table of 2^17 places: the worst moment of the index.
    let sessions = (1 << 17) / 8 * 7 + 1;
    for session in 1..=sessions {
        queue.track(at(0), SessionId(session), 4_000);
    }
    let entries = queue.entries.capacity() * size_of::<Entry>();
    let index = queue.slots.capacity() / 7 * 8 * (size_of::<(SessionId, u32)>() + 1);
    assert!(entries + index <= 100 * queue.len(), "{entries} + {index} bytes");
}
