//! Bots that work by themselves: who is told of a job, and what a day has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfence_model::{BotId, OrgId};
use ringfence_store::market_bots::{self, DayBudget, MarketBot};
use ringfence_store::{Store, bots};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::{Fixture, agent, start};

on_both_engines!(
    agents_stand_in_a_circle_and_each_job_begins_somewhere_else,
    an_agent_has_one_bot_for_each_kind_of_result,
    a_day_has_so_many_attempts_and_so_much_fuel,
    two_hosts_do_not_overspend_a_day,
);

const DAY: Duration = Duration::from_secs(24 * 3600);
const BUDGET: DayBudget = DayBudget { attempts: 3, fuel: 100 };

impl Fixture {
    /// A bot of a new agent with an org of its own.
    async fn market_bot(&self) -> MarketBot {
        let mut tx = self.tx().await;
        let agent = agent(&mut tx, &self.clock, &self.rng, "Worker").await;
        tx.commit().await.unwrap();
        self.bot_of(&agent).await
    }

    async fn bot_of(&self, agent: &ringfence_store::accounts::Agent) -> MarketBot {
        let id = BotId::new(&self.clock, &self.rng);
        // The component's org is no matter here.
        let row = bots::Bot { id: id.clone(), name: id.to_string(), ..self.oracle.clone() };
        let mut tx = self.tx().await;
        bots::insert(&mut tx, &row).await.unwrap();
        tx.commit().await.unwrap();
        MarketBot { bot_id: id, agent_id: agent.id.clone(), org_id: agent.org_id.clone() }
    }

    async fn add(&self, bot: &MarketBot, kind: &str) -> bool {
        let mut tx = self.tx().await;
        let added = market_bots::add(&mut tx, bot, kind).await.unwrap();
        tx.commit().await.unwrap();
        added
    }

    async fn to_tell(&self, kind: &str, buyer: &OrgId, job: &str, limit: u32) -> Vec<MarketBot> {
        market_bots::to_tell(&mut self.reader().await, kind, buyer, job, limit).await.unwrap()
    }
}

async fn reserve(store: &Store, f: &Fixture, bot: &BotId, fuel: u64) -> bool {
    let midnight =
        start().plus(DAY * u32::try_from(f.now().since(start()).as_secs() / DAY.as_secs()).unwrap());
    let mut tx = store.begin().await.unwrap();
    let reserved = market_bots::reserve(&mut tx, bot, midnight, fuel, BUDGET).await.unwrap();
    tx.commit().await.unwrap();
    reserved
}

async fn agents_stand_in_a_circle_and_each_job_begins_somewhere_else(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut all = BTreeSet::new();
    for _ in 0..10 {
        let bot = f.market_bot().await;
        assert!(f.add(&bot, "json").await && f.add(&bot, "text").await);
        all.insert(bot.bot_id.to_string());
    }
    let nobody = &f.buyer.org_id;
    assert_eq!(f.to_tell("html", nobody, "job", 5).await, []);
    let whole = f.to_tell("json", nobody, "job", 20).await;
    assert_eq!(whole.iter().map(|bot| bot.bot_id.to_string()).collect::<BTreeSet<_>>(), all, "each once");
    assert_eq!(whole.len(), 10);
    let own = &whole[3].org_id;
    let others: Vec<_> = whole.iter().filter(|bot| bot.org_id != *own).cloned().collect();
    assert_eq!(f.to_tell("json", own, "job", 20).await, others, "not of the buyer's org");
    let mut told = BTreeMap::new();
    for job in 0..200 {
        let job = format!("job {job}");
        let bots = f.to_tell("json", nobody, &job, 3).await;
        assert_eq!(bots.len(), 3);
        assert_eq!(f.to_tell("json", nobody, &job, 3).await, bots, "the same for the same job");
        for bot in bots {
            *told.entry(bot.bot_id.to_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(told.len(), 10, "everybody has a turn: {told:?}");
}

async fn an_agent_has_one_bot_for_each_kind_of_result(engine: Engine) {
    let f = Fixture::new(engine).await;
    let [first, second] = [f.bot_of(&f.worker).await, f.bot_of(&f.worker).await];
    assert!(f.add(&first, "json").await);
    assert!(!f.add(&second, "json").await && f.add(&second, "text").await);
    let works_for = async |bot: &MarketBot| {
        market_bots::works_for(&mut f.reader().await, &bot.bot_id, &f.worker.id).await.unwrap()
    };
    assert!(works_for(&first).await && works_for(&second).await);
    let mut tx = f.tx().await;
    market_bots::remove(&mut tx, &first.bot_id).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!works_for(&first).await && works_for(&second).await);
    assert!(f.add(&second, "json").await);
}

async fn a_day_has_so_many_attempts_and_so_much_fuel(engine: Engine) {
    let f = Fixture::new(engine).await;
    let bot = f.market_bot().await.bot_id;
    assert!(!reserve(&f.store, &f, &bot, 101).await, "more than a day has");
    assert!(reserve(&f.store, &f, &bot, 60).await);
    assert!(!reserve(&f.store, &f, &bot, 41).await && reserve(&f.store, &f, &bot, 40).await);
    // What was not used is there again.
    let mut tx = f.tx().await;
    market_bots::give_back(&mut tx, &bot, start(), 0, 90).await.unwrap();
    tx.commit().await.unwrap();
    assert!(reserve(&f.store, &f, &bot, 10).await);
    assert!(!reserve(&f.store, &f, &bot, 1).await, "three attempts");
    let mut tx = f.tx().await;
    market_bots::give_back(&mut tx, &bot, start(), 1, 10).await.unwrap();
    tx.commit().await.unwrap();
    assert!(reserve(&f.store, &f, &bot, 1).await);
    // What comes back late does not go into another day.
    f.clock.advance(DAY);
    assert!(reserve(&f.store, &f, &bot, 100).await);
    let mut tx = f.tx().await;
    market_bots::give_back(&mut tx, &bot, start(), 1, 60).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!reserve(&f.store, &f, &bot, 1).await);
}

async fn two_hosts_do_not_overspend_a_day(engine: Engine) {
    let f = Fixture::new(engine).await;
    let bot = f.market_bot().await.bot_id;
    let hosts = f.hosts(engine, 4).await;
    let reserved = tokio::join!(
        reserve(&hosts[0], &f, &bot, 10),
        reserve(&hosts[1], &f, &bot, 10),
        reserve(&hosts[2], &f, &bot, 10),
        reserve(&hosts[3], &f, &bot, 10),
        reserve(&hosts[0], &f, &bot, 10),
    );
    let (a, b, c, d, e) = reserved;
    assert_eq!([a, b, c, d, e].into_iter().filter(|&reserved| reserved).count(), 3);
}
