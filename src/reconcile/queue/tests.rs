//! The queue without a clock: what is taken next, in which order, and how much at once.

use std::time::Duration;

use super::*;

fn queue() -> (Queue, Instant) {
    (Queue::new(3), Instant::now())
}

#[test]
fn a_scattered_queue_hands_out_every_key_once_and_in_an_order_of_its_own() {
    let (mut queue, now) = (Queue::new(500), Instant::now());
    queue.scatter(true);
    let keys: Vec<_> = (100..400).map(|n| n.to_string()).collect();
    for key in &keys {
        queue.wake(key, Reason::Sweep, now);
    }
    let taken = std::iter::from_fn(|| queue.next(now)).map(|job| job.key.to_string());
    let mut taken: Vec<_> = taken.collect();
    assert_ne!(taken, keys);
    taken.sort();
    assert_eq!(taken, keys);
}

#[test]
fn wakeups_for_one_tenant_coalesce() {
    let (mut queue, now) = queue();
    assert_eq!(queue.wake("a", Reason::Sweep, now), Woken::Queued);
    assert_eq!(queue.wake("a", Reason::Sweep, now), Woken::Coalesced);
    assert_eq!(queue.next(now).unwrap().reason, Reason::Sweep);
    assert_eq!(queue.next(now), None);
}

#[test]
fn a_more_urgent_reason_moves_a_tenant_forward_and_keeps_its_age() {
    let (mut queue, now) = queue();
    queue.wake("a", Reason::Sweep, now);
    queue.wake("b", Reason::Insert, now);
    queue.wake("a", Reason::Login, now + Duration::from_secs(1));
    let job = queue.next(now).unwrap();
    assert_eq!(
        (&*job.key, job.reason, job.since),
        ("a", Reason::Login, now)
    );
    assert_eq!(&*queue.next(now).unwrap().key, "b");
    assert_eq!(queue.next(now), None, "the stale entry is passed over");
}

#[test]
fn wakeups_during_a_run_cause_exactly_one_more() {
    let (mut queue, now) = queue();
    queue.wake("a", Reason::Insert, now);
    queue.next(now).unwrap();
    for _ in 0..10_000 {
        assert_eq!(queue.wake("a", Reason::Login, now), Woken::Rerun);
    }
    assert_eq!(queue.next(now), None, "one tenant is never in flight twice");
    queue.done("a", None);
    assert_eq!(queue.next(now).unwrap().reason, Reason::Login);
    queue.done("a", None);
    assert!(queue.is_empty());
}

#[test]
fn workers_take_less_towards_the_end_so_that_nobody_is_left_with_all_of_it() {
    let mut left = 10_000;
    let mut taken = Vec::new();
    while left > 0 {
        taken.push(portion(left).min(left));
        left -= taken.last().unwrap();
    }
    assert_eq!(taken[0], BATCH);
    assert!(taken.is_sorted_by(|a, b| a >= b), "{taken:?}");
    assert!(taken[taken.len() - 8..].iter().all(|it| *it <= LEAST));
}

#[test]
fn runs_of_one_reason_are_taken_together_and_those_given_back_alone() {
    let (mut queue, now) = (Queue::new(9), Instant::now());
    for key in ["a", "b", "c"] {
        queue.wake(key, Reason::Sweep, now);
    }
    queue.wake("d", Reason::Login, now);
    let taken = |queue: &mut Queue, most, serves| -> Vec<String> {
        let jobs = queue.take(now, most, serves);
        jobs.iter().map(|job| job.key.to_string()).collect()
    };
    assert_eq!(taken(&mut queue, 9, Serves::Everything), ["d"]);
    assert_eq!(
        taken(&mut queue, 9, Serves::Live),
        [""; 0],
        "a sweep is not live work"
    );
    let jobs = queue.take(now, 2, Serves::Everything);
    assert_eq!(queue.wake("a", Reason::Insert, now), Woken::Rerun);
    for job in &jobs {
        queue.give_back(job, Looked::Alone);
    }
    assert_eq!(
        taken(&mut queue, 9, Serves::Live),
        ["a"],
        "somebody waits for it now"
    );
    assert_eq!(taken(&mut queue, 9, Serves::Everything), ["b"]);
    assert_eq!(taken(&mut queue, 9, Serves::Everything), ["c"]);
    assert_eq!(queue.in_flight(), 4);
}

#[test]
fn a_retry_waits_for_its_time_unless_somebody_asks() {
    let (mut queue, now) = queue();
    let due = now + Duration::from_secs(10);
    queue.wake("a", Reason::Insert, now);
    queue.next(now).unwrap();
    queue.done("a", Some(due));
    assert_eq!(queue.next(now), None);
    assert_eq!(queue.next_due(), Some(due));
    assert_eq!(queue.depth(), 0);
    assert_eq!(queue.next(due).unwrap().reason, Reason::Retry);
    queue.done("a", Some(due + Duration::from_secs(10)));
    assert_eq!(queue.wake("a", Reason::Manual, due), Woken::Queued);
    assert_eq!(queue.next(due).unwrap().reason, Reason::Manual);
}

#[test]
fn what_another_daemon_may_do_first_waits_and_keeps_its_reason() {
    let (mut queue, now) = queue();
    let due = now + Duration::from_secs(1);
    assert_eq!(queue.wake_at(due, "a", Reason::Insert, now), Woken::Queued);
    assert_eq!(queue.wake("a", Reason::Sweep, now), Woken::Coalesced);
    let later = due + Duration::from_secs(1);
    queue.wake_at(later, "a", Reason::Login, now);
    assert_eq!((queue.next(now), queue.next_due()), (None, Some(due)));
    let job = queue.next(due).unwrap();
    assert_eq!((job.reason, job.since), (Reason::Login, now));
    queue.wake_at(later, "a", Reason::Insert, due);
    queue.done("a", None);
    assert_eq!(
        queue.next(due).unwrap().reason,
        Reason::Insert,
        "who has it in hand does not wait for others"
    );
}

#[test]
fn what_another_daemon_may_do_first_is_not_forgotten_by_a_full_queue() {
    let (mut queue, now) = queue();
    let due = now + Duration::from_secs(1);
    for key in ["a", "b", "c"] {
        queue.wake_at(due, key, Reason::Insert, now);
    }
    assert_eq!(queue.wake_at(due, "d", Reason::Login, now), Woken::Dropped);
    assert_eq!(queue.wake("a", Reason::Login, now), Woken::Queued);
    assert_eq!(&*queue.next(now).unwrap().key, "a");
}

#[test]
fn a_full_queue_drops_new_tenants_and_keeps_known_ones() {
    let (mut queue, now) = queue();
    for key in ["a", "b", "c"] {
        queue.wake(key, Reason::Insert, now);
    }
    assert_eq!(queue.wake("d", Reason::Login, now), Woken::Dropped);
    assert_eq!(queue.wake("a", Reason::Login, now), Woken::Coalesced);
    assert_eq!(queue.len(), 3);
}

#[test]
fn an_event_takes_the_place_of_what_a_sweep_found_and_a_find_nobodys() {
    let (mut queue, now) = queue();
    for key in ["a", "b", "c"] {
        queue.wake(key, Reason::Sweep, now);
    }
    assert_eq!(queue.wake("d", Reason::Sweep, now), Woken::Dropped);
    queue.wake("c", Reason::Login, now);
    assert_eq!(queue.wake("d", Reason::Insert, now), Woken::Queued);
    let order: Vec<_> = std::iter::from_fn(|| queue.next(now))
        .map(|job| job.key.to_string())
        .collect();
    assert_eq!(order, ["c", "d", "a"]);
    assert_eq!(queue.wake("e", Reason::Insert, now), Woken::Dropped);
}

#[test]
fn tenants_that_are_put_off_make_room_for_others() {
    let (mut queue, now) = queue();
    for (key, seconds) in [("a", 10), ("b", 30), ("c", 20)] {
        queue.wake(key, Reason::Sweep, now);
        queue.next(now).unwrap();
        queue.done(key, Some(now + Duration::from_secs(seconds)));
    }
    assert_eq!(queue.wake("d", Reason::Login, now), Woken::Queued);
    assert_eq!(queue.len(), 3);
    assert_eq!(
        queue.wake("b", Reason::Login, now),
        Woken::Queued,
        "b was forgotten, and c goes now"
    );
    assert_eq!(queue.next_due(), Some(now + Duration::from_secs(10)));
}

#[test]
fn tenants_of_one_reason_go_in_the_order_they_came() {
    let (mut queue, now) = queue();
    for key in ["b", "a", "c"] {
        queue.wake(key, Reason::Insert, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.next(now))
        .map(|job| job.key.to_string())
        .collect();
    assert_eq!(order, ["b", "a", "c"]);
}
