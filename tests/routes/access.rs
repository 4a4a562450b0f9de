//! Who may do what, asked of a live host: a row for every operation of the OpenAPI document, a column for every caller.
//! It is written by hand, not made from the permission matrix. An operation without a row fails, and there are no
//! exceptions.

use std::collections::BTreeSet;

use ringfence_testkit::{Engine, on_both_engines};

use super::world::World;
use crate::host;

on_both_engines!(every_caller_gets_from_every_operation_what_the_table_says);

/// `+` it is done, `x` the caller is told that it may not (403), `-` for the caller there is no such thing (404),
/// `?` the caller has to say who it is (401).
///
/// What is named in a path is org A's, agent `g`'s where an agent has such things, or the operators'. The columns: the
/// admin, the operator, the user and the viewer, who have logged in; the agents; a service key that is an operator's (`k`);
/// a service key of org A's admin that is for reading bots alone (`b`); nobody. (The change of a password stands last: it ends
/// the callers' sessions.)
const TABLE: &str = "
    operation                                                 org A   org B  operators  bots  nobody
                                                              aouvgh  ag     akv        b     n

    get    /health                                            ++++++  ++     +++        +     +

    post   /auth/login                                        ++++++  ++     +++        +     +
    post   /auth/refresh                                      ++++++  ++     +++        +     +
    post   /auth/logout                                       ++++xx  +x     +x+        x     ?
    get    /auth/me                                           ++++++  ++     +++        +     ?
    post   /admin/signing-keys                                xxxxxx  xx     +xx        x     ?

    post   /users                                             +xxxxx  +x     +xx        x     ?
    get    /users                                             ++xxxx  +x     ++x        x     ?
    get    /users?org_id={org_id}                             ++xxxx  --     ++x        x     ?
    get    /users/{user_id}                                   ++xxxx  --     ++x        x     ?
    patch  /users/{user_id}                                   +xxxxx  --     +xx        x     ?
    delete /users/{user_id}                                   +xxxxx  --     +xx        x     ?

    post   /keys                                              +xxx++  ++     +xx        x     ?
    get    /keys                                              ++xx++  ++     ++x        x     ?
    get    /keys/{key_id}                                     ++xx+x  --     ---        x     ?
    delete /keys/{key_id}                                     +xxx+x  --     +xx        x     ?
    put    /admin/keys/{key_id}/limits                        xxxxxx  --     ++x        x     ?

    post   /agents                                            +xxxxx  +x     +xx        x     +
    get    /agents/{agent_id}                                 ++++++  ++     +++        x     ?
    get    /agents/{agent_id}/reputation                      ++++++  ++     +++        x     ?
    get    /leaderboard                                       ++++++  ++     +++        x     ?
    patch  /agents/{agent_id}                                 +xxx+x  xx     xxx        x     ?
    post   /agents/{agent_id}/rotate-key                      +xxx+x  --     ---        x     ?

    post   /components                                        +++x++  ++     ++x        x     ?
    post   /components/check                                  +++x++  ++     ++x        x     ?
    post   /components/check?bot_id={bot_id}                  +++x++  --     --x        x     ?
    get    /components                                        ++++++  ++     +++        x     ?
    get    /components/{digest}                               ++++++  --     ---        x     ?

    post   /bots                                              +++x++  ++     ++x        x     ?
    get    /bots                                              ++++++  ++     +++        +     ?
    get    /bots/{bot_id}                                     ++++++  --     ---        +     ?
    patch  /bots/{bot_id}                                     +++x++  --     ---        x     ?
    delete /bots/{bot_id}                                     +++x++  --     ---        x     ?
    post   /bots/{bot_id}/invoke                              +++x++  --     ---        x     ?
    get    /bots/{bot_id}/secrets                             ++++++  --     ---        x     ?
    put    /bots/{bot_id}/secrets/{name}                      +++x++  --     ---        x     ?
    delete /bots/{bot_id}/secrets/{name}                      +++x++  --     ---        x     ?
    get    /bots/{bot_id}/invocations                         ++++++  --     ---        +     ?
    get    /bots/{bot_id}/invocations/{invocation_id}         ++++++  --     ---        +     ?
    get    /bots/{bot_id}/invocations/{invocation_id}/logs    ++++++  --     ---        +     ?

    get    /bots/{bot_id}/invocations/{invocation_id}/logs/follow  ++++++  --     ---        +     ?
    get    /bots/{bot_id}/logs                                ++++++  --     ---        +     ?
    get    /bots/{bot_id}/logs/follow?max_seconds=1           ++++++  --     ---        +     ?

    get    /usage                                             ++++++  ++     +++        x     ?
    get    /usage?org_id={org_id}                             ++++++  --     ++x        x     ?
    get    /usage?group_by=org                                xxxxxx  xx     ++x        x     ?

    post   /jobs                                              xxxx++  x+     xxx        x     ?
    get    /jobs                                              ++++++  ++     +++        x     ?
    get    /jobs/{task_id}                                    ++++++  ++     +++        x     ?
    patch  /jobs/{task_id}                                    xxxx+x  xx     xxx        x     ?
    get    /jobs/{task_id}/participants                       ++++++  ++     +++        x     ?
    get    /jobs/{task_id}/input                              xxxx+x  x+     xxx        x     ?
    post   /jobs/{task_id}/fund                               xxxx+x  xx     xxx        x     ?
    post   /jobs/{task_id}/claim                              xxxxxx  x+     xxx        x     ?
    post   /jobs/{task_id}/unclaim                            xxxx--  x+     xxx        x     ?
    post   /jobs/{task_id}/submit                             xxxxxx  x+     xxx        x     ?
    post   /jobs/{task_id}/cancel                             xxxx+x  xx     xxx        x     ?
    post   /jobs/{task_id}/refund                             xxxx+x  xx     xxx        x     ?
    post   /jobs/{task_id}/refund-excess                      xxxx+x  xx     xxx        x     ?
    post   /admin/jobs/{task_id}/retry-payout                 xxxxxx  xx     ++x        x     ?
    get    /jobs/{task_id}/submissions                        ++++++  ++     +++        x     ?
    get    /submissions                                       xxxx++  x+     xxx        x     ?
    get    /submissions/{submission_id}                       ++++++  ++     +++        x     ?

    get    /ledger/balance                                    ++++++  ++     +++        x     ?
    get    /ledger/transfers?agent_id={agent_id}              +++++x  --     ++x        x     ?
    post   /admin/ledger/deposits                             xxxxxx  xx     ++x        x     ?
    get    /admin/ledger/deposits                             xxxxxx  xx     ++x        x     ?
    post   /admin/ledger/withdrawals                          xxxxxx  xx     ++x        x     ?
    get    /admin/ledger/withdrawals                          xxxxxx  xx     ++x        x     ?
    post   /admin/ledger/withdrawals/{withdrawal_id}/post     xxxxxx  xx     ++x        x     ?
    post   /admin/ledger/withdrawals/{withdrawal_id}/void     xxxxxx  xx     ++x        x     ?
    get    /admin/ledger/accounts/{agent_id}                  xxxxxx  xx     ++x        x     ?
    post   /admin/agents/{agent_id}/freeze                    xxxxxx  xx     ++x        x     ?
    post   /admin/agents/{agent_id}/unfreeze                  xxxxxx  xx     ++x        x     ?
    post   /admin/ledger/reported-balance                     xxxxxx  xx     ++x        x     ?
    get    /admin/ledger/check                                xxxxxx  xx     ++x        x     ?
    get    /platform/solvency                                 xxxxxx  xx     ++x        x     ?

    post   /admin/jobs/{task_id}/dispute/resolve              xxxxxx  xx     ++x        x     ?

    post   /admin/policies                                    xxxxxx  xx     +xx        x     ?
    get    /admin/policies                                    xxxxxx  xx     ++x        x     ?
    get    /admin/policies/{policy_id}                        xxxxxx  xx     ++x        x     ?
    patch  /admin/policies/{policy_id}                        xxxxxx  xx     +xx        x     ?
    delete /admin/policies/{policy_id}                        xxxxxx  xx     +xx        x     ?
    get    /admin/policy-schema                               xxxxxx  xx     ++x        x     ?

    get    /audit                                             ++xxxx  +x     ++x        x     ?
    get    /audit?org_id={org_id}                             ++xxxx  --     ++x        x     ?

    post   /auth/password                                     ++++xx  +x     +x+        x     ?
";

/// An operation as the OpenAPI document has it, and what each caller gets from it.
struct Row {
    operation: String,
    expected: String,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in TABLE.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [method, path, expected @ ..] = &words[..] else { continue };
        if path.starts_with('/') {
            rows.push(Row { operation: format!("{method} {path}"), expected: expected.concat() });
        }
    }
    rows
}

fn mark(status: u16) -> char {
    match status {
        200..=299 => '+',
        401 => '?',
        403 => 'x',
        404 => '-',
        _ => '!',
    }
}

async fn every_caller_gets_from_every_operation_what_the_table_says(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let mut deviations = Vec::new();
    for Row { operation, expected } in rows() {
        assert_eq!(expected.len(), world.callers.len(), "{operation}: a mark for every caller");
        let answers = world.callers.iter().map(|caller| world.ask(&operation, caller));
        let answers = futures::future::join_all(answers).await;
        for ((caller, answer), expected) in world.callers.iter().zip(answers).zip(expected.chars()) {
            if mark(answer.status) != expected {
                let (name, status, code) = (caller.name, answer.status, &answer.body["code"]);
                deviations.push(format!("{operation} by {name}: {expected}, not {status} {code}"));
            }
        }
    }
    assert!(deviations.is_empty(), "{}", deviations.join("\n"));
}

#[tokio::test]
async fn every_operation_has_its_row_and_every_row_its_operation() {
    let host = host(Engine::Sqlite).await;
    let document = host.client().get("//openapi.json", "").await.expect(200);
    let mut served = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        served.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    let path_alone = |row: Row| row.operation.split('?').next().unwrap().to_owned();
    let tabled: BTreeSet<_> = rows().into_iter().map(path_alone).collect();
    let alone: Vec<_> = served.symmetric_difference(&tabled).collect();
    assert!(alone.is_empty(), "an operation without a row, or a row without an operation: {alone:?}");
}
