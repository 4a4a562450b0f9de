//! `ringfence`: the command line, and the wiring of a host.

mod commands;
mod config;
mod logging;
mod master_key;
mod outbound;
mod redact;
mod serve;

use clap::Parser as _;
use config::{AuditCommand, Cli, Command, KeysCommand, LedgerCommand, UserCommand};

/// A call makes and drops some hundred small pieces of memory. The system's allocator takes several times as long for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    logging::log_panics();
    let result = match cli.command {
        Command::Serve(config) => serve::serve(*config),
        Command::OperatorKey(database) => commands::operator_key(&database),
        Command::User { command: UserCommand::Create(arguments) } => commands::create_user(arguments),
        Command::Keys { command: KeysCommand::Generate } => commands::generate_master_key(),
        Command::Keys { command: KeysCommand::Rotate(arguments) } => commands::rotate_master_key(&arguments),
        Command::Keys { command: KeysCommand::RotateSigning(arguments) } => {
            commands::rotate_signing_key(&arguments)
        }
        Command::Audit { command: AuditCommand::Verify(database) } => commands::verify_audit_log(&database),
        Command::Ledger { command: LedgerCommand::Check(database) } => commands::check_ledger(&database),
        Command::Precompile(arguments) => commands::precompile(&arguments),
        Command::Permissions => commands::permissions(),
        Command::Openapi => print_openapi(),
        Command::CompileComponent => ringfence_runtime::compile_from_stdin().map_err(Into::into),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain, outermost first: what failed, then why.
            let mut message = format!("ringfence: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                message.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            complain(&message);
            std::process::ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command's errors go to its standard error")]
fn complain(message: &str) {
    // A database address has a password in it. The addresses stay: whoever is told that one is taken has to know which.
    eprintln!("{}", redact::redact_secrets(message));
}

fn print_openapi() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", ringfence_api::openapi().to_pretty_json()?)?;
    Ok(())
}
