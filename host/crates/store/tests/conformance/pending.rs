//! Money in two phases, frozen accounts, and what the database itself refuses.

use ringfence_model::{EscrowStatus, JobId, PayoutStatus, TransferId};
use ringfence_store::jobs::{self, Job, Payout};
use ringfence_store::ledger::{
    self, Account, AccountKind, Discrepancy, Ended, Frozen, Posted, Transfer, TransferKind, TransferPhase,
};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;
use crate::ledger::{account, funded, holds, transfer};

on_both_engines!(
    what_is_reserved_cannot_be_spent,
    a_pending_transfer_ends_once,
    twenty_ends_at_once_are_one,
    a_frozen_account_keeps_what_it_has,
    the_database_itself_refuses,
    transfers_are_neither_changed_nor_removed,
    every_discrepancy_is_found,
    a_snapshot_does_not_see_what_comes_later,
);

/// What is on an account, and what of it is reserved.
async fn state(fixture: &Fixture, of: &Account) -> (i64, i64) {
    let found = ledger::account(&mut fixture.reader().await, of.kind, &of.owner_id).await.unwrap().unwrap();
    (found.balance_micros, found.reserved_micros)
}

fn id(fixture: &Fixture) -> TransferId {
    TransferId::new(&fixture.clock, &fixture.rng)
}

fn pending(fixture: &Fixture, from: &Account, to: &Account, amount: i64, once: &str) -> Transfer {
    let kind = TransferKind::Withdrawal;
    Transfer { kind, phase: TransferPhase::Pending, ..transfer(fixture, from, to, amount, once) }
}

async fn reserved(fixture: &Fixture, wanted: &Transfer) -> Posted {
    let mut tx = fixture.tx().await;
    let done = ledger::reserve(&mut tx, wanted).await.unwrap();
    tx.commit().await.unwrap();
    done
}

async fn end(fixture: &Fixture, of: &Transfer, phase: TransferPhase) -> Ended {
    let mut tx = fixture.tx().await;
    let (ending, now) = (id(fixture), fixture.now());
    let done = match phase {
        TransferPhase::Posted => ledger::post_pending(&mut tx, of, ending, now).await.unwrap(),
        _ => ledger::void_pending(&mut tx, of, ending, now).await.unwrap(),
    };
    tx.commit().await.unwrap();
    done
}

async fn what_is_reserved_cannot_be_spent(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let first = pending(&fixture, &accounts[0], &accounts[1], 60, "first");
    assert_eq!(reserved(&fixture, &first).await, Posted::Posted);
    assert_eq!(reserved(&fixture, &first).await, Posted::AlreadyPosted);
    assert_eq!(state(&fixture, &accounts[0]).await, (100, 60));
    assert_eq!(state(&fixture, &accounts[1]).await, (100, 0), "nothing has moved");
    let more = pending(&fixture, &accounts[0], &accounts[1], 41, "more");
    assert_eq!(reserved(&fixture, &more).await, Posted::InsufficientFunds);
    let mut tx = fixture.tx().await;
    let much = transfer(&fixture, &accounts[0], &accounts[1], 41, "much");
    assert_eq!(ledger::post(&mut tx, &much).await.unwrap(), Posted::InsufficientFunds);
    let rest = transfer(&fixture, &accounts[0], &accounts[1], 40, "rest");
    assert_eq!(ledger::post(&mut tx, &rest).await.unwrap(), Posted::Posted);
    tx.commit().await.unwrap();
    assert_eq!(state(&fixture, &accounts[0]).await, (60, 60));
    holds(&fixture).await;
}

async fn a_pending_transfer_ends_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    for (once, phase, left, got) in
        [("one", TransferPhase::Posted, 70, 130), ("two", TransferPhase::Voided, 70, 130)]
    {
        let wanted = pending(&fixture, &accounts[0], &accounts[1], 30, once);
        assert_eq!(reserved(&fixture, &wanted).await, Posted::Posted);
        holds(&fixture).await;
        assert_eq!(end(&fixture, &wanted, phase).await, Ended::Ended);
        for again in [TransferPhase::Posted, TransferPhase::Voided] {
            assert_eq!(end(&fixture, &wanted, again).await, Ended::Already(phase));
        }
        assert_eq!(state(&fixture, &accounts[0]).await, (left, 0), "{once}");
        assert_eq!(state(&fixture, &accounts[1]).await, (got, 0), "{once}");
        holds(&fixture).await;
    }
    // What was booked at once is not pending.
    let whole = transfer(&fixture, &accounts[0], &accounts[1], 1, "single");
    let mut tx = fixture.tx().await;
    assert_eq!(ledger::post(&mut tx, &whole).await.unwrap(), Posted::Posted);
    assert!(ledger::post_pending(&mut tx, &whole, id(&fixture), fixture.now()).await.is_err());
}

async fn twenty_ends_at_once_are_one(engine: Engine) {
    let fixture = std::sync::Arc::new(Fixture::new(engine).await);
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let wanted = std::sync::Arc::new(pending(&fixture, &accounts[0], &accounts[1], 30, "one"));
    assert_eq!(reserved(&fixture, &wanted).await, Posted::Posted);
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let (fixture, wanted) = (fixture.clone(), wanted.clone());
            let phase = if number % 2 == 0 { TransferPhase::Posted } else { TransferPhase::Voided };
            tokio::spawn(async move { (phase, end(&fixture, &wanted, phase).await) })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    let ended: Vec<_> = done.iter().filter(|(_, end)| *end == Ended::Ended).collect();
    let [(phase, _)] = ended[..] else { panic!("it ended {} times", ended.len()) };
    assert!(done.iter().all(|(_, end)| *end == Ended::Ended || *end == Ended::Already(*phase)));
    let moved = if *phase == TransferPhase::Posted { 30 } else { 0 };
    assert_eq!(state(&fixture, &accounts[0]).await, (100 - moved, 0));
    assert_eq!(state(&fixture, &accounts[1]).await, (100 + moved, 0));
    holds(&fixture).await;
}

async fn a_frozen_account_keeps_what_it_has(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (outside, accounts) = funded(&fixture, 2, 100).await;
    let before = pending(&fixture, &accounts[0], &outside, 10, "before");
    assert_eq!(reserved(&fixture, &before).await, Posted::Posted);
    let frozen = Frozen { since: fixture.now(), reason: "asked for".to_owned() };
    let mut tx = fixture.tx().await;
    ledger::freeze(&mut tx, &accounts[0].id, Some(&frozen)).await.unwrap();
    // Only agents' accounts freeze.
    ledger::freeze(&mut tx, &outside.id, Some(&frozen)).await.unwrap();
    let seen = ledger::account(&mut tx, AccountKind::Agent, "agent-0").await.unwrap().unwrap();
    assert_eq!(seen.frozen, Some(frozen));
    let outwards = |kind, once| Transfer { kind, ..transfer(&fixture, &accounts[0], &accounts[1], 1, once) };
    let inwards = |kind, once| Transfer { kind, ..transfer(&fixture, &accounts[1], &accounts[0], 5, once) };
    for kind in [TransferKind::Fund, TransferKind::Withdrawal] {
        assert_eq!(ledger::post(&mut tx, &outwards(kind, "out")).await.unwrap(), Posted::Frozen, "{kind}");
        assert_eq!(ledger::reserve(&mut tx, &outwards(kind, "out")).await.unwrap(), Posted::Frozen, "{kind}");
        let other_way = inwards(kind, kind.as_str());
        assert_eq!(ledger::post(&mut tx, &other_way).await.unwrap(), Posted::Posted, "{kind}");
    }
    for kind in [TransferKind::Refund, TransferKind::Excess, TransferKind::Deposit] {
        let back = inwards(kind, kind.as_str());
        assert_eq!(ledger::post(&mut tx, &back).await.unwrap(), Posted::Posted, "{kind}");
    }
    // A payout waits for it.
    let payout = inwards(TransferKind::Payout, "payout");
    assert_eq!(ledger::post(&mut tx, &payout).await.unwrap(), Posted::Frozen);
    assert_eq!(ledger::reserve(&mut tx, &payout).await.unwrap(), Posted::Posted);
    let payout = Transfer { phase: TransferPhase::Pending, ..payout };
    tx.commit().await.unwrap();
    assert_eq!(end(&fixture, &payout, TransferPhase::Posted).await, Ended::Frozen);
    assert_eq!(end(&fixture, &before, TransferPhase::Posted).await, Ended::Frozen);
    assert_eq!(state(&fixture, &accounts[0]).await, (125, 10));
    holds(&fixture).await;

    let mut tx = fixture.tx().await;
    ledger::freeze(&mut tx, &accounts[0].id, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(end(&fixture, &payout, TransferPhase::Posted).await, Ended::Ended);
    assert_eq!(end(&fixture, &before, TransferPhase::Posted).await, Ended::Ended);
    assert_eq!(state(&fixture, &accounts[0]).await, (120, 0));
    holds(&fixture).await;
}

/// Whatever the code does: no account but the outside falls below zero, nothing is reserved that is not there, a pending
/// transfer ends once, and a job pays once.
async fn the_database_itself_refuses(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let job = resolved_job(&fixture).await;
    let wanted = pending(&fixture, &accounts[0], &accounts[1], 30, "one");
    assert_eq!(reserved(&fixture, &wanted).await, Posted::Posted);
    assert_eq!(end(&fixture, &wanted, TransferPhase::Posted).await, Ended::Ended);
    let columns = "org_id, kind, phase, pending_id, debit_account_id, credit_account_id, amount, job_id, idempotency_id,
        external_reference, created_at";
    let another = |kind: &str, phase: &str, pending: &str, job: &str| {
        format!(
            "INSERT INTO ledger_transfers (id, {columns}) SELECT 'xfer_x', org_id, {kind}, {phase}, {pending},
                debit_account_id, credit_account_id, amount, {job}, 'another', NULL, created_at
            FROM ledger_transfers WHERE id = '{}'",
            wanted.id
        )
    };
    let (none, this, paid) = ("NULL", format!("'{}'", wanted.id), format!("'{}'", job.id));
    let refused = [
        "UPDATE ledger_accounts SET balance = -1 WHERE owner_id = 'agent-0'".to_owned(),
        "UPDATE ledger_accounts SET balance = balance - 71 WHERE owner_id = 'agent-0'".to_owned(),
        "UPDATE ledger_accounts SET reserved = balance + 1 WHERE owner_id = 'agent-0'".to_owned(),
        "UPDATE ledger_accounts SET reserved = -1".to_owned(),
        "UPDATE ledger_accounts SET balance = -1 WHERE kind = 'escrow'".to_owned(),
        another("kind", "'voided'", &this, none),
        another("kind", "'posted'", none, none),
        another("kind", "'single'", &this, none),
        another("kind", "'done'", none, none),
        another("'payout'", "'single'", none, &paid),
    ];
    for sql in refused {
        let done = fixture.try_to_meddle(engine, sql.clone().leak()).await;
        assert!(done.is_err(), "{sql}");
    }
    // The statement is one that can succeed.
    fixture.meddle(engine, another("kind", "'pending'", none, none).leak()).await;
    assert!(!ledger::check(&mut fixture.reader().await).await.unwrap().is_empty());
}

/// A job that was funded, won and paid, with all of its transfers.
async fn resolved_job(fixture: &Fixture) -> Job {
    let job = fixture.claimed_job().await;
    let submission = fixture.submission(&job, 1);
    let mut tx = fixture.tx().await;
    ringfence_store::submissions::insert(&mut tx, &submission).await.unwrap();
    let outside = account(fixture, &mut tx, AccountKind::External, "org_00000000000000000000000000").await;
    let buyer = account(fixture, &mut tx, AccountKind::Agent, job.buyer_id.as_str()).await;
    let escrow = account(fixture, &mut tx, AccountKind::Escrow, job.id.as_str()).await;
    let worker = account(fixture, &mut tx, AccountKind::Agent, fixture.worker.id.as_str()).await;
    let fees = account(fixture, &mut tx, AccountKind::Fees, "org_00000000000000000000000000").await;
    let steps = [
        (TransferKind::Deposit, &outside, &buyer, 10_000_000, None),
        (TransferKind::Fund, &buyer, &escrow, 10_000_000, Some(&job.id)),
        (TransferKind::Payout, &escrow, &worker, 8_000_000, Some(&job.id)),
        (TransferKind::Fee, &escrow, &fees, 2_000_000, Some(&job.id)),
    ];
    for (kind, from, to, amount, job_id) in steps {
        let once = format!("{kind}:{}", job.id);
        let step = Transfer { kind, job_id: job_id.cloned(), ..transfer(fixture, from, to, amount, &once) };
        assert_eq!(ledger::post(&mut tx, &step).await.unwrap(), Posted::Posted);
    }
    let (worker, now) = (&fixture.worker, fixture.now());
    let error = Some("not yet".to_owned());
    let payout = Payout { status: PayoutStatus::Failed, error: error.clone(), excess_refunded: None };
    let won = jobs::resolve(&mut tx, &job.id, &submission.id, &worker.id, &worker.org_id, &payout, now);
    assert!(won.await.unwrap());
    let unpaid = jobs::get(&mut tx, &job.id).await.unwrap().unwrap();
    let (status, escrow) = (Some(PayoutStatus::Failed), Some(EscrowStatus::Held));
    assert_eq!((unpaid.payout_status, unpaid.escrow_status, unpaid.payout_error), (status, escrow, error));
    assert!(jobs::paid(&mut tx, &job.id, now).await.unwrap());
    assert!(!jobs::paid(&mut tx, &job.id, now).await.unwrap(), "once");
    tx.commit().await.unwrap();
    job
}

async fn transfers_are_neither_changed_nor_removed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 1, 100).await;
    let before = ledger::account(&mut fixture.reader().await, AccountKind::Agent, "agent-0").await.unwrap();
    let on_both = [
        "UPDATE ledger_transfers SET amount = amount + 1",
        "UPDATE ledger_transfers SET amount = amount",
        "DELETE FROM ledger_transfers",
    ];
    let on_one: &[_] = match engine {
        Engine::Postgres => &["TRUNCATE ledger_transfers", "TRUNCATE ledger_accounts CASCADE"],
        Engine::Sqlite => &[
            "REPLACE INTO ledger_transfers SELECT * FROM ledger_transfers",
            "UPDATE OR REPLACE ledger_transfers SET idempotency_id = 'x'",
        ],
    };
    for sql in on_both.iter().chain(on_one) {
        let refused = fixture.try_to_meddle(engine, sql).await.expect_err(sql).to_string();
        assert!(refused.contains("transfers are never"), "{sql}: {refused}");
    }
    let after = ledger::account(&mut fixture.reader().await, AccountKind::Agent, "agent-0").await.unwrap();
    assert_eq!((after, accounts.len()), (before, 1));
    holds(&fixture).await;
}

async fn every_discrepancy_is_found(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let paid = resolved_job(&fixture).await;
    let held = fixture.claimed_job().await;
    // The fixture funds the job without paying.
    let missing = Discrepancy::Escrow { job_id: held.id.clone(), held: 0, reserved: 0, expected: 10_000_000 };
    let found = |fixture: &Fixture| {
        let store = fixture.store.clone();
        async move { ledger::check(&mut store.snapshot().await.unwrap()).await.unwrap() }
    };
    assert_eq!(found(&fixture).await, std::slice::from_ref(&missing));
    let id = accounts[1].id.clone();
    let reserve = "UPDATE ledger_accounts SET reserved = 7 WHERE owner_id = 'agent-1'";
    fixture.meddle(engine, reserve).await;
    let reserves = Discrepancy::Reserved { account_id: id.clone(), recorded: 7, computed: 0 };
    assert_eq!(found(&fixture).await, [reserves.clone(), missing.clone()]);

    // A second payout, which only a database without the index would take, from an escrow that has nothing.
    let drop_index = "DROP INDEX ledger_transfers_once_for_job";
    fixture.meddle(engine, drop_index).await;
    let double = format!(
        "INSERT INTO ledger_transfers (id, org_id, kind, phase, pending_id, debit_account_id, credit_account_id, amount,
            job_id, idempotency_id, external_reference, created_at)
        SELECT 'xfer_01JZ0000000000000000000000', org_id, kind, phase, NULL, credit_account_id, debit_account_id, 1, job_id,
            'again', NULL, created_at FROM ledger_transfers WHERE kind = 'payout' AND job_id = '{}'",
        paid.id
    );
    if engine == Engine::Postgres {
        fixture.meddle(engine, double.leak()).await;
    } else {
        // Its trigger is a second lock.
        assert!(fixture.try_to_meddle(engine, double.clone().leak()).await.is_err());
        fixture.meddle(engine, "DROP TRIGGER ledger_transfers_are_not_replaced").await;
        fixture.meddle(engine, double.leak()).await;
    }
    let all = found(&fixture).await;
    let repeated = Discrepancy::Repeated { job_id: paid.id.clone(), kind: TransferKind::Payout, times: 2 };
    assert!(all.contains(&repeated) && all.contains(&reserves) && all.contains(&missing), "{all:?}");
    let balances = all.iter().filter(|found| matches!(found, Discrepancy::Balance { .. })).count();
    assert_eq!(balances, 2, "of both accounts: {all:?}");
    assert!(!all.iter().any(|found| matches!(found, Discrepancy::Sum { .. })), "nothing was made: {all:?}");
    let told: Vec<_> = all.iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|text| text.contains(": ") && text.len() > 20), "{told:?}");
    let of_job = ledger::of_job(&mut fixture.reader().await, &paid.id).await.unwrap();
    assert_eq!(of_job.len(), 4);
    assert!(ledger::of_job(&mut fixture.reader().await, &nobodys(&fixture)).await.unwrap().is_empty());
}

fn nobodys(fixture: &Fixture) -> JobId {
    JobId::new(&fixture.clock, &fixture.rng)
}

async fn a_snapshot_does_not_see_what_comes_later(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let mut snapshot = fixture.store.snapshot().await.unwrap();
    let first = ledger::inspect(&mut snapshot).await.unwrap();
    assert_eq!((first.accounts, first.transfers, first.jobs), (3, 2, 0));
    let mut tx = fixture.tx().await;
    let moved = transfer(&fixture, &accounts[0], &accounts[1], 60, "moved");
    assert_eq!(ledger::post(&mut tx, &moved).await.unwrap(), Posted::Posted);
    tx.commit().await.unwrap();
    assert_eq!(ledger::inspect(&mut snapshot).await.unwrap(), first, "as it was");
    drop(snapshot);
    let now = ledger::inspect(&mut fixture.store.snapshot().await.unwrap()).await.unwrap();
    assert_eq!((now.transfers, now.discrepancies), (3, vec![]));
}
