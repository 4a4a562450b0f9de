//! Who may do what: the permission matrix. This table is the whole of it; the Cedar policies, the Cedar schema, the scopes
//! of keys and the table in `docs/access.md` are all made from it.

/// Whose things an action can be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The caller's own org's.
    Own,
    /// The caller's own org's; members of the operators' org reach those of every org.
    Staff,
    /// For members of the operators' org alone.
    Platform,
    /// Every org's: what is on the market. What of it a party may see or do, the market's own rules say.
    Market,
}

impl Reach {
    /// The word in the documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own org",
            Self::Staff => "own org; operators: any",
            Self::Platform => "operators only",
            Self::Market => "market",
        }
    }
}

/// What one action needs.
#[derive(Debug)]
pub struct Permission {
    /// The action, as it stands in policies and in the audit log.
    pub name: &'static str,
    /// Which roles have it. `agent` stands for agents, by their keys.
    pub roles: &'static [&'static str],
    /// Whose things it reaches.
    pub reach: Reach,
    /// The scope that a key needs for it; empty if it needs none.
    pub scope: &'static str,
    /// The Cedar entity types that it is done to.
    pub resources: &'static [&'static str],
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident $name:literal [$($role:ident)*] $reach:ident $scope:literal [$($resource:ident)+];)+) => {
        /// Something that a caller can ask for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $variant),+ }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What it needs.
            #[must_use]
            pub const fn permission(self) -> &'static Permission {
                match self { $(Self::$variant => &Permission {
                    name: $name,
                    roles: &[$(stringify!($role)),*],
                    reach: Reach::$reach,
                    scope: $scope,
                    resources: &[$(stringify!($resource)),+],
                }),+ }
            }
        }
    };
}

permissions! {
    // action                                roles that have it             reach     scope of a key      done to

    /// Upload a component.
    ComponentsUpload  "components:upload"    [admin operator user agent]         Own      "components:write" [Org];
    /// List the org's components.
    ComponentsList    "components:list"      [admin operator user viewer agent]  Own      "components:read"  [Org];
    /// Read what is known of a component.
    ComponentsRead    "components:read"      [admin operator user viewer agent]  Own      "components:read"  [Component];

    /// Deploy a bot or an oracle.
    BotsCreate        "bots:create"          [admin operator user agent]         Own      "bots:write"       [Org];
    /// List the org's bots.
    BotsList          "bots:list"            [admin operator user viewer agent]  Own      "bots:read"        [Org];
    /// Read a bot's configuration.
    BotsRead          "bots:read"            [admin operator user viewer agent]  Own      "bots:read"        [Bot];
    /// Change a bot; other grants need `bots:grant` as well.
    BotsUpdate        "bots:update"          [admin operator user agent]         Own      "bots:write"       [Bot];
    /// Give a bot other grants than it has, or a new one any.
    BotsGrant         "bots:grant"           [admin operator user agent]         Own      "bots:grant"       [Org Bot];
    /// Take a bot out of service.
    BotsDelete        "bots:delete"          [admin operator user agent]         Own      "bots:write"       [Bot];
    /// Call a bot.
    BotsInvoke        "bots:invoke"          [admin operator user agent]         Own      "bots:invoke"      [Bot];
    /// List the names of a bot's secrets.
    SecretsList       "secrets:list"         [admin operator user viewer agent]  Own      "secrets:read"     [Bot];
    /// Set and remove a bot's secrets.
    SecretsWrite      "secrets:write"        [admin operator user agent]         Own      "secrets:write"    [Bot];
    /// Read the calls of a bot and their logs.
    InvocationsRead   "invocations:read"     [admin operator user viewer agent]  Own      "bots:read"        [Bot];

    /// Read what the org's calls used.
    UsageRead         "usage:read"           [admin operator user viewer agent]  Own      "usage:read"       [Org];
    /// Read what the calls of every org used.
    UsageReadAll      "usage:read-all"       [admin operator]                    Platform "usage:read"       [Org];

    /// Post a job.
    JobsCreate        "jobs:create"          [agent]                             Own      "jobs:write"       [Org];
    /// Change a posted job.
    JobsUpdate        "jobs:update"          [agent]                             Own      "jobs:write"       [Job];
    /// Move a job's price into escrow.
    JobsFund          "jobs:fund"            [agent]                             Own      "jobs:write"       [Job];
    /// Call a job off.
    JobsCancel        "jobs:cancel"          [agent]                             Own      "jobs:write"       [Job];
    /// Have the escrow of an ended job, or an excess, back.
    JobsRefund        "jobs:refund"          [agent]                             Own      "jobs:write"       [Job];
    /// Try again to pay the worker of a job whose payout has failed.
    JobsRetryPayout   "jobs:retry-payout"    [admin operator]                    Platform "ledger:write"     [Org Job];
    /// List the market's jobs.
    JobsList          "jobs:list"            [admin operator user viewer agent]  Market   "jobs:read"        [Org];
    /// Read a job.
    JobsRead          "jobs:read"            [admin operator user viewer agent]  Market   "jobs:read"        [Job];
    /// Read the data that a job is about.
    JobsReadInput     "jobs:read-input"      [agent]                             Market   "jobs:read"        [Job];
    /// Take part in a job.
    JobsClaim         "jobs:claim"           [agent]                             Market   "jobs:work"        [Job];
    /// Withdraw from a job.
    JobsUnclaim       "jobs:unclaim"         [agent]                             Market   "jobs:work"        [Job];
    /// Hand in a result.
    JobsSubmit        "jobs:submit"          [agent]                             Market   "jobs:work"        [Job];
    /// List who takes part in a job: the buyer's org, all; the others, their own.
    ParticipantsList  "participants:list"    [admin operator user viewer agent]  Market   "jobs:read"        [Job];
    /// List the submissions of a job, or one's own.
    SubmissionsList   "submissions:list"     [admin operator user viewer agent]  Market   "jobs:read"        [Job Org];
    /// Read a submission.
    SubmissionsRead   "submissions:read"     [admin operator user viewer agent]  Market   "jobs:read"        [Submission];

    /// Decide what becomes of a disputed job.
    DisputesResolve   "disputes:resolve"     [admin operator]                    Platform "disputes:write"   [Job];

    /// Read what one's agent, or one's org, can spend.
    LedgerBalance     "ledger:balance"       [admin operator user viewer agent]  Own      "ledger:read"      [Org];
    /// Read the transfers of an agent of one's org; an agent, its own.
    LedgerTransfers   "ledger:transfers"     [admin operator user viewer agent]  Own      "ledger:read"      [Agent];
    /// Read every agent's account, deposits, withdrawals, solvency, and whether the ledger holds.
    LedgerRead        "ledger:read-all"      [admin operator]                    Platform "ledger:read"      [Org Agent];
    /// Book money that came in from outside.
    LedgerDeposit     "ledger:deposit"       [admin operator]                    Platform "ledger:write"     [Agent];
    /// Reserve money that is to go out, and book that it has, or that it has not.
    LedgerWithdraw    "ledger:withdraw"      [admin operator]                    Platform "ledger:write"     [Org Agent];
    /// Freeze an agent's account, and let it go again.
    LedgerFreeze      "ledger:freeze"        [admin operator]                    Platform "ledger:write"     [Agent];
    /// Report what the bank or the wallet really holds.
    LedgerReport      "ledger:report"        [admin operator]                    Platform "ledger:write"     [Org];

    /// Add an agent to one's org. (Anyone may register one with an org of its own.)
    AgentsRegister    "agents:register"      [admin]                             Own      "agents:write"     [Org];
    /// Read an agent's profile.
    AgentsRead        "agents:read"          [admin operator user viewer agent]  Market   "agents:read"      [Agent];
    /// Read what an agent has done on the market, and the leaderboard.
    ReputationRead    "reputation:read"      [admin operator user viewer agent]  Market   "agents:read"      [Agent Org];
    /// Change an agent's profile; an agent, its own.
    AgentsUpdate      "agents:update"        [admin agent]                       Own      "agents:write"     [Agent];
    /// Replace an agent's key; an agent, its own.
    AgentsRotateKey   "agents:rotate-key"    [admin agent]                       Own      "keys:write"       [Agent];

    /// List the org's keys; an agent, its own.
    KeysList          "keys:list"            [admin operator agent]              Own      "keys:read"        [Org Agent];
    /// Make a service key, or a further key of an agent; an agent, of itself.
    KeysCreate        "keys:create"          [admin agent]                       Own      "keys:write"       [Org Agent];
    /// Read what is known of a key; an agent, of its own.
    KeysRead          "keys:read"            [admin operator agent]              Own      "keys:read"        [Key];
    /// Revoke a key; an agent, its own.
    KeysRevoke        "keys:revoke"          [admin agent]                       Staff     "keys:write"       [Key];
    /// Set how many requests a minute a key may make.
    KeysLimit         "keys:limit"           [admin operator]                    Platform "keys:limit"       [Key];

    /// Make a user.
    UsersCreate       "users:create"         [admin]                             Staff    "users:write"      [Org];
    /// List the users of an org.
    UsersList         "users:list"           [admin operator]                    Staff    "users:read"       [Org];
    /// Read a user's profile.
    UsersRead         "users:read"           [admin operator]                    Staff    "users:read"       [User];
    /// Change a user: name, role, password, whether it may log in.
    UsersUpdate       "users:update"         [admin]                             Staff    "users:write"      [User];
    /// Delete a user.
    UsersDelete       "users:delete"         [admin]                             Staff    "users:write"      [User];
    /// Ask who one is.
    AccountRead       "account:read"         [admin operator user viewer agent]  Own      ""                 [User Service Agent];
    /// Change one's own password, and log out.
    AccountChange     "account:change"       [admin operator user viewer]        Own      "account:write"    [User];

    /// Read the policies that were added to this matrix.
    PoliciesRead      "policies:read"        [admin operator]                    Platform "policies:read"    [Org];
    /// Add, change and remove policies.
    PoliciesWrite     "policies:write"       [admin]                             Platform "policies:write"   [Org];
    /// Read an org's audit log.
    AuditRead         "audit:read"           [admin operator]                    Staff    "audit:read"       [Org];
    /// Sign tokens with a new key from now on.
    SigningKeysRotate "signing-keys:rotate"  [admin]                             Platform "signing-keys:write" [Org];
}

impl Action {
    /// The action's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.permission().name
    }

    /// The group that it belongs to in policies: `read` or `write`.
    #[must_use]
    pub fn group(self) -> &'static str {
        let scope = self.permission().scope;
        if scope.is_empty() || scope.ends_with(":read") { "read" } else { "write" }
    }

    /// Whether an agent may do it to itself and to what is its own alone.
    pub(super) const fn of_itself(self) -> bool {
        matches!(
            self,
            Self::LedgerTransfers
                | Self::AgentsUpdate
                | Self::AgentsRotateKey
                | Self::KeysList
                | Self::KeysCreate
                | Self::KeysRead
                | Self::KeysRevoke
        )
    }
}

/// Every scope that a key can have, in the order of the matrix, `*` first.
pub(crate) fn scopes() -> Vec<&'static str> {
    let mut scopes = vec![ALL_SCOPES];
    for action in Action::ALL {
        let scope = action.permission().scope;
        if !scope.is_empty() && !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// The scope that is all scopes.
pub(crate) const ALL_SCOPES: &str = "*";

/// The matrix as a table in Markdown, for `docs/access.md` and `ringfence permissions`.
#[must_use]
pub fn markdown() -> String {
    let columns = ["admin", "operator", "user", "viewer", "agent"];
    let mut table = format!("| action | {} | reach | scope |\n", columns.join(" | "));
    table.push_str(&format!("|---|{}---|---|\n", ":-:|".repeat(columns.len())));
    for action in Action::ALL {
        let permission = action.permission();
        let marks = columns.map(|role| if permission.roles.contains(&role) { "✓" } else { " " });
        let scope =
            if permission.scope.is_empty() { "none".to_owned() } else { format!("`{}`", permission.scope) };
        let (name, reach) = (permission.name, permission.reach.as_str());
        table.push_str(&format!("| `{name}` | {} | {reach} | {scope} |\n", marks.join(" | ")));
    }
    table
}
