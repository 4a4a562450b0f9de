//! What is done from the command line beside serving: whoever has that, has the database and the master key.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use ringfence_control::{
    Control, MasterKeys, NewUser, Settings, StoredComponents, is_sealed, permission_table, reseal_all,
    verify_audit,
};
use ringfence_model::{SystemClock, SystemRng};
use ringfence_runtime::{Runtime, RuntimeConfig};
use ringfence_store::{Store, ledger};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{CreateUser, Database, Precompile, RotateMasterKey, RotateSigningKey};
use crate::master_key::{self, Rotation, Source};
use crate::serve::{Failure, block_on, compiler, open_store};

/// Makes and prints an operator key.
pub(crate) fn operator_key(database: &Database) -> Result<(), Failure> {
    block_on(async {
        let (control, first) = start(database).await?;
        let key = match first {
            Some(key) => key,
            None => control.add_operator_key().await?,
        };
        say(key.reveal())
    })
}

/// Makes a user, whose password comes from standard input.
pub(crate) fn create_user(arguments: CreateUser) -> Result<(), Failure> {
    let password = password()?;
    block_on(async {
        let control = control(&arguments.database).await?;
        let new = NewUser {
            email: arguments.email,
            name: arguments.name,
            role: arguments.role,
            password: Some(password),
            password_hash: None,
            org_id: arguments.org,
        };
        let user = control.create_user_by_command(new).await.map_err(|error| match error {
            ringfence_control::UserError::Invalid(invalid) => {
                let wrong = invalid.0.into_iter().map(|error| format!("{} {}", error.field, error.message));
                wrong.collect::<Vec<_>>().join("; ").into()
            }
            other => Failure::from(other),
        })?;
        say(&format!("{} {} ({}) of {}", user.user_id, user.email, user.role, user.org_id))
    })
}

/// The first line of standard input. At a terminal it is asked for; it is seen there while it is typed.
fn password() -> Result<SecretString, Failure> {
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        write!(std::io::stderr(), "Password (at least 12 characters; it is shown as you type): ")?;
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned().into());
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned().into())
}

/// Prints a new master key.
pub(crate) fn generate_master_key() -> Result<(), Failure> {
    say(MasterKeys::generate(&SystemRng::new()).expose_secret())
}

/// Seals all secrets under a new master key.
pub(crate) fn rotate_master_key(arguments: &RotateMasterKey) -> Result<(), Failure> {
    block_on(async {
        let database = &arguments.database;
        let store = open_store(database).await?;
        let source = Source::of(database)?;
        let _alone = source.file().map(Rotation::begin).transpose()?;
        let before = source.load(is_sealed(&store).await?)?;
        let file = source.file();
        // That everything can be opened is seen before anything is changed.
        reseal_all(&store, &before, &SystemRng::new()).await?;
        if let Some(file) = file {
            master_key::rewrite(file, arguments.forget_old)?;
        }
        let now = source.load(true)?;
        let resealed = reseal_all(&store, &now, &SystemRng::new()).await?;
        store.close().await;
        let id = now.sealing_id();
        control(database).await?.note_master_key(id).await?;
        say(&match (file, arguments.forget_old) {
            (Some(file), true) => {
                format!(
                    "{} now holds the master key {id} alone; every secret is sealed under it",
                    file.display()
                )
            }
            (Some(file), false) => format!(
                "{resealed} secrets are sealed under the new master key {id}, which stands first in {file}. Give that file \
                 to every host and restart them; then `ringfence keys rotate --forget-old` drops the old keys.",
                file = file.display()
            ),
            (None, _) => format!(
                "every secret is sealed under {id}, the first key in {}. To rotate: put a new key before it, separated by \
                 a comma, restart the hosts, and run this again; then take the old key out.",
                master_key::VARIABLE
            ),
        })
    })
}

/// Signs tokens with a new key from now on.
pub(crate) fn rotate_signing_key(arguments: &RotateSigningKey) -> Result<(), Failure> {
    block_on(async {
        let control = control(&arguments.database).await?;
        control.rotate_signing_key_by_command(arguments.forget_old).await?;
        say(if arguments.forget_old {
            "tokens are signed with a new key; everybody has to log in again"
        } else {
            "tokens are signed with a new key; those that were signed before stay good"
        })
    })
}

/// Looks through the audit log. An error if any chain is broken.
pub(crate) fn verify_audit_log(database: &Database) -> Result<(), Failure> {
    block_on(async {
        let store = open_store(database).await?;
        let master = Source::of(database)?.load(is_sealed(&store).await?)?;
        let reports = verify_audit(&store, &master).await?;
        store.close().await;
        let mut broken = 0;
        for report in &reports {
            match &report.broken {
                None => {
                    say(&format!("{}: {} entries, the last {}", report.org_id, report.entries, report.hash))?
                }
                Some(link) => {
                    broken += 1;
                    say(&format!(
                        "{}: BROKEN: {link} ({} entries before it are good)",
                        report.org_id, report.entries
                    ))?;
                }
            }
        }
        if broken == 0 {
            Ok(())
        } else {
            Err(format!("{broken} of {} chains are broken", reports.len()).into())
        }
    })
}

/// Computes the ledger anew, at one moment. An error if anything does not hold.
pub(crate) fn check_ledger(database: &Database) -> Result<(), Failure> {
    block_on(async {
        let store = open_store(database).await?;
        let mut snapshot = store.snapshot().await?;
        let found = ledger::inspect(&mut snapshot).await?;
        drop(snapshot);
        store.close().await;
        say(&format!(
            "looked at {} accounts, {} transfers and the escrows of {} jobs",
            found.accounts, found.transfers, found.jobs
        ))?;
        for discrepancy in &found.discrepancies {
            say(&format!("WRONG: {discrepancy}"))?;
        }
        if found.discrepancies.is_empty() {
            say(
                "every balance and every reserve is what its transfers come to, debits equal credits, nothing was paid twice",
            )
        } else {
            Err(format!("the ledger does not hold: {} discrepancies", found.discrepancies.len()).into())
        }
    })
}

/// Compiles what is in use and has no code for this program's engine. Changes nothing but the folder of compiled code:
/// an older host goes on with the database as it is.
pub(crate) fn precompile(arguments: &Precompile) -> Result<(), Failure> {
    block_on(async {
        let database = &arguments.database;
        let store = Store::connect_beside_older(&database.url()).await?;
        let config = RuntimeConfig {
            cache_dir: Some(database.compiled()),
            slots: 1,
            compiler: compiler()?,
            compile_limits: arguments.compiling.limits(),
            ..RuntimeConfig::default()
        };
        let runtime = Runtime::new(config, Arc::new(StoredComponents(store.clone())))?;
        let report = ringfence_control::precompile(&store, &runtime, |place, all, digest, done| {
            let done = done.map_or_else(|error| format!("not compiled: {error}"), |()| "compiled".to_owned());
            // Progress: a terminal that is gone is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{place} of {all}: {digest} {done}");
        })
        .await?;
        store.close().await;
        say(&format!("{} compiled, {} were there, {} failed", report.compiled, report.kept, report.failed))?;
        // What cannot be compiled could not be called by the older host either, or not by this one.
        if report.failed == 0 {
            Ok(())
        } else {
            Err(format!("{} components have no code", report.failed).into())
        }
    })
}

/// Prints the permission matrix.
pub(crate) fn permissions() -> Result<(), Failure> {
    say(permission_table().trim_end())
}

/// The use cases. Where the database is new, its operator key is shown, for it is never to be had again.
async fn control(database: &Database) -> Result<Control, Failure> {
    let (control, first) = start(database).await?;
    if let Some(key) = first {
        crate::serve::hand_over(&key, None)?;
    }
    Ok(control)
}

async fn start(database: &Database) -> Result<(Control, Option<ringfence_model::ApiKey>), Failure> {
    let store: Store = open_store(database).await?;
    let master = Source::of(database)?.load(is_sealed(&store).await?)?;
    let runtime = Runtime::new(
        RuntimeConfig { slots: 1, ..RuntimeConfig::default() },
        Arc::new(StoredComponents(store.clone())),
    )?;
    let (clock, rng) = (Arc::new(SystemClock), Arc::new(SystemRng::new()));
    Ok(Control::start(store, runtime, master, clock, rng, Settings::default()).await?)
}

fn say(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
