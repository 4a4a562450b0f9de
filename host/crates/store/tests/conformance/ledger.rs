//! Money: never below zero, never booked twice, never lost.

use ringfence_model::{AccountId, AgentId, MicroUsdc, OrgId, Timestamp, TransferId};
use ringfence_store::accounts::{self, Agent};
use ringfence_store::ledger::{
    self, Account, AccountKind, Discrepancy, Posted, Transfer, TransferFilter, TransferKind, TransferPhase,
};
use ringfence_store::{StoreError, Tx};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(
    a_transfer_is_booked_once,
    no_account_falls_below_zero,
    what_is_not_booked_leaves_nothing,
    several_transfers_are_booked_together_or_not_at_all,
    parallel_transfers_neither_lose_nor_make_money,
    a_wrong_balance_is_found,
    the_agents_of_an_org_are_added_up,
);

pub(crate) async fn account(fixture: &Fixture, tx: &mut Tx, kind: AccountKind, owner: &str) -> Account {
    let id = AccountId::new(&fixture.clock, &fixture.rng);
    let wanted = Account::empty(id, fixture.buyer.org_id.clone(), kind, owner.to_owned());
    let [account] = ledger::ensure_accounts(tx, [wanted]).await.unwrap();
    account
}

pub(crate) fn transfer(fixture: &Fixture, from: &Account, to: &Account, amount: i64, once: &str) -> Transfer {
    Transfer {
        id: TransferId::new(&fixture.clock, &fixture.rng),
        org_id: fixture.buyer.org_id.clone(),
        kind: TransferKind::Fund,
        phase: TransferPhase::Single,
        pending_id: None,
        debit: from.id.clone(),
        credit: to.id.clone(),
        amount: MicroUsdc::from_micros(amount).unwrap(),
        job_id: None,
        idempotency_id: once.to_owned(),
        external_reference: None,
        created_at: fixture.now(),
    }
}

async fn balance(fixture: &Fixture, account: &Account) -> i64 {
    let mut reader = fixture.reader().await;
    ledger::account(&mut reader, account.kind, &account.owner_id).await.unwrap().unwrap().balance_micros
}

pub(crate) async fn holds(fixture: &Fixture) {
    let mut reader = fixture.reader().await;
    assert_eq!(ledger::check(&mut reader).await.unwrap(), []);
}

/// The outside, and `count` accounts with `each` on them.
pub(crate) async fn funded(fixture: &Fixture, count: usize, each: i64) -> (Account, Vec<Account>) {
    let mut tx = fixture.tx().await;
    let outside = account(fixture, &mut tx, AccountKind::External, OrgId::platform().as_str()).await;
    let mut accounts = Vec::new();
    for number in 0..count {
        let account = account(fixture, &mut tx, AccountKind::Agent, &format!("agent-{number}")).await;
        let deposit = transfer(fixture, &outside, &account, each, &format!("deposit:{number}"));
        assert_eq!(ledger::post(&mut tx, &deposit).await.unwrap(), Posted::Posted);
        accounts.push(account);
    }
    tx.commit().await.unwrap();
    (outside, accounts)
}

async fn a_transfer_is_booked_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (outside, accounts) = funded(&fixture, 1, 100).await;
    assert_eq!((balance(&fixture, &outside).await, balance(&fixture, &accounts[0]).await), (-100, 100));
    let mut tx = fixture.tx().await;
    let mut again = transfer(&fixture, &outside, &accounts[0], 100, "deposit:0");
    assert_eq!(ledger::post(&mut tx, &again).await.unwrap(), Posted::AlreadyPosted);
    // Later than the first, so that it is listed before it.
    fixture.tick();
    again.created_at = fixture.now();
    again.idempotency_id = "deposit:new".to_owned();
    again.external_reference = Some("wire".to_owned());
    assert_eq!(ledger::post(&mut tx, &again).await.unwrap(), Posted::Posted);
    let same_wire = Transfer {
        external_reference: Some("wire".to_owned()),
        ..transfer(&fixture, &outside, &accounts[0], 1, "deposit:other")
    };
    assert_eq!(ledger::post(&mut tx, &same_wire).await.unwrap(), Posted::AlreadyPosted);
    tx.commit().await.unwrap();
    assert_eq!(balance(&fixture, &accounts[0]).await, 200);
    let mut reader = fixture.reader().await;
    let before = (Timestamp::from_micros(i64::MAX), String::new());
    let newest = TransferFilter { kind: None, since: Timestamp::EPOCH, before, limit: 1 };
    assert_eq!(ledger::of_account(&mut reader, &accounts[0].id, &newest).await.unwrap(), [again]);
    holds(&fixture).await;
}

async fn no_account_falls_below_zero(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    // In both directions: whichever account is taken first.
    for (from, to) in [(0, 1), (1, 0)] {
        let mut tx = fixture.tx().await;
        let too_much = transfer(&fixture, &accounts[from], &accounts[to], 101, &format!("much-{from}"));
        assert_eq!(ledger::post(&mut tx, &too_much).await.unwrap(), Posted::InsufficientFunds);
        // The transaction goes on, as if that had not been asked.
        let all = transfer(&fixture, &accounts[from], &accounts[to], 100, &format!("all-{from}"));
        assert_eq!(ledger::post(&mut tx, &all).await.unwrap(), Posted::Posted);
        let back = transfer(&fixture, &accounts[to], &accounts[from], 100, &format!("back-{from}"));
        assert_eq!(ledger::post(&mut tx, &back).await.unwrap(), Posted::Posted);
        tx.commit().await.unwrap();
    }
    assert_eq!((balance(&fixture, &accounts[0]).await, balance(&fixture, &accounts[1]).await), (100, 100));
    holds(&fixture).await;
}

async fn what_is_not_booked_leaves_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let mut tx = fixture.tx().await;
    let moved = transfer(&fixture, &accounts[0], &accounts[1], 60, "moved");
    assert_eq!(ledger::post(&mut tx, &moved).await.unwrap(), Posted::Posted);
    drop(tx);
    assert_eq!((balance(&fixture, &accounts[0]).await, balance(&fixture, &accounts[1]).await), (100, 100));
    let mut tx = fixture.tx().await;
    let to_itself = transfer(&fixture, &accounts[0], &accounts[0], 1, "itself");
    assert!(matches!(ledger::post(&mut tx, &to_itself).await, Err(StoreError::Refused(_))));
    drop(tx);
    holds(&fixture).await;
}

async fn several_transfers_are_booked_together_or_not_at_all(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (outside, accounts) = funded(&fixture, 4, 100).await;
    let parts = |amounts: [i64; 3], once: &str| {
        let [from, others @ ..] = &accounts[..] else { panic!("four accounts") };
        let parts =
            others.iter().zip(amounts).enumerate().map(|(number, (to, amount))| {
                transfer(&fixture, from, to, amount, &format!("{once}:{number}"))
            });
        parts.collect::<Vec<_>>()
    };
    let balances = async || {
        let mut found = Vec::new();
        for account in &accounts {
            found.push(balance(&fixture, account).await);
        }
        found
    };
    let mut tx = fixture.tx().await;
    let (all, much) = (parts([50, 30, 20], "all"), parts([50, 30, 21], "much"));
    assert_eq!(ledger::post_all(&mut tx, &much).await.unwrap(), Posted::InsufficientFunds, "all together");
    assert_eq!(ledger::post_all(&mut tx, &all).await.unwrap(), Posted::Posted);
    // From one to the next, which has nothing but that; and one of them was booked before.
    let deposit = transfer(&fixture, &outside, &accounts[0], 7, "in");
    let on = transfer(&fixture, &accounts[0], &accounts[1], 7, "on");
    assert_eq!(ledger::post_all(&mut tx, &[deposit, on]).await.unwrap(), Posted::Posted);
    let new = transfer(&fixture, &accounts[1], &accounts[2], 1, "new");
    let again = [new.clone(), transfer(&fixture, &accounts[1], &accounts[2], 1, "all:2")];
    assert_eq!(ledger::post_all(&mut tx, &again).await.unwrap(), Posted::AlreadyPosted);
    tx.commit().await.unwrap();
    assert_eq!(balances().await, [0, 157, 130, 120]);
    // A key twice, as if the look before had missed it; a fifth account; a fourth transfer.
    let twice = [new.clone(), transfer(&fixture, &accounts[1], &accounts[2], 1, "new")];
    let five = [new.clone(), transfer(&fixture, &outside, &accounts[3], 1, "a"), all[0].clone()];
    let four = [0; 4].map(|_| new.clone());
    for wrong in [&twice[..], &five, &four] {
        let mut tx = fixture.tx().await;
        let refused = ledger::post_all(&mut tx, wrong).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. } | StoreError::Refused(_))), "{refused:?}");
    }
    assert_eq!(balances().await, [0, 157, 130, 120]);
    holds(&fixture).await;
}

async fn parallel_transfers_neither_lose_nor_make_money(engine: Engine) {
    let fixture = std::sync::Arc::new(Fixture::new(engine).await);
    let (outside, accounts) = funded(&fixture, 4, 50).await;
    let accounts = std::sync::Arc::new(accounts);
    let tasks: Vec<_> = (0..20usize)
        .map(|task| {
            let (fixture, accounts) = (fixture.clone(), accounts.clone());
            tokio::spawn(async move {
                let mut posted = 0;
                for round in 0..10usize {
                    let (from, to) = ((task + round) % 4, (task * 3 + round + 1) % 4);
                    if from == to {
                        continue;
                    }
                    let amount = i64::try_from(1 + (task * 7 + round * 5) % 40).unwrap();
                    let movement = transfer(
                        &fixture,
                        &accounts[from],
                        &accounts[to],
                        amount,
                        &format!("{task}-{round}"),
                    );
                    let mut tx = fixture.tx().await;
                    if ledger::post(&mut tx, &movement).await.unwrap() == Posted::Posted {
                        posted += 1;
                    }
                    tx.commit().await.unwrap();
                }
                posted
            })
        })
        .collect();
    let mut posted = 0;
    for task in tasks {
        posted += task.await.unwrap();
    }
    assert!(posted > 20, "{posted}");
    let mut sum = balance(&fixture, &outside).await;
    for account in accounts.iter() {
        let has = balance(&fixture, account).await;
        assert!(has >= 0);
        sum += has;
    }
    assert_eq!(sum, 0);
    holds(&fixture).await;
}

async fn a_wrong_balance_is_found(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (_, accounts) = funded(&fixture, 2, 100).await;
    let spoil = "UPDATE ledger_accounts SET balance = balance + 7 WHERE owner_id = 'agent-1'";
    fixture.meddle(engine, spoil).await;
    let mut reader = fixture.reader().await;
    let account_id = accounts[1].id.clone();
    let found = Discrepancy::Balance { account_id, recorded: 107, computed: 100 };
    assert_eq!(ledger::check(&mut reader).await.unwrap(), [found, Discrepancy::Sum { sum: 7 }]);
}

async fn the_agents_of_an_org_are_added_up(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let org = &fixture.buyer.org_id;
    let mut tx = fixture.tx().await;
    assert_eq!(ledger::agents_of_org(&mut tx, org).await.unwrap(), (0, 0), "no accounts");
    let second = Agent { id: AgentId::new(&fixture.clock, &fixture.rng), ..fixture.buyer.clone() };
    let third = Agent { id: AgentId::new(&fixture.clock, &fixture.rng), ..fixture.buyer.clone() };
    for agent in [&second, &third] {
        accounts::insert_agent(&mut tx, agent).await.unwrap();
    }
    let outside = account(&fixture, &mut tx, AccountKind::External, OrgId::platform().as_str()).await;
    // Accounts of other kinds and of other orgs' agents count for nothing, not even one that bears an agent's id.
    let of = [
        (AccountKind::Agent, fixture.buyer.id.as_str(), 7),
        (AccountKind::Agent, second.id.as_str(), 3_000_000_000_000),
        (AccountKind::Agent, fixture.worker.id.as_str(), 50),
        (AccountKind::Escrow, second.id.as_str(), 900),
        (AccountKind::Fees, org.as_str(), 8000),
    ];
    for (kind, owner, amount) in of {
        let account = account(&fixture, &mut tx, kind, owner).await;
        let deposit = transfer(&fixture, &outside, &account, amount, &format!("{kind}:{owner}"));
        assert_eq!(ledger::post(&mut tx, &deposit).await.unwrap(), Posted::Posted);
    }
    assert_eq!(ledger::agents_of_org(&mut tx, org).await.unwrap(), (3_000_000_000_007, 0));
    assert_eq!(ledger::agents_of_org(&mut tx, &fixture.worker.org_id).await.unwrap(), (50, 0));
    let nobodys = OrgId::new(&fixture.clock, &fixture.rng);
    assert_eq!(ledger::agents_of_org(&mut tx, &nobodys).await.unwrap(), (0, 0));
    tx.commit().await.unwrap();
    assert_eq!(ledger::agents_of_org(&mut fixture.reader().await, org).await.unwrap().0, 3_000_000_000_007);
}
