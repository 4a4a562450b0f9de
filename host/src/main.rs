//! `ringfence`: the command line, and the wiring of a host.

mod config;
mod logging;
mod redact;
mod serve;

use clap::Parser as _;
use config::{Cli, Command};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    logging::log_panics();
    let result = match cli.command {
        Command::Serve(config) => serve::serve(config),
        Command::OperatorKey(database) => serve::operator_key(&database),
        Command::Openapi => print_openapi(),
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
