//! Who may let a bot work on the market as which agent.

use ringfence_store::bots::Bot;
use ringfence_store::market_bots::{self, MarketBot};
use ringfence_store::{Tx, accounts};

use super::{BotError, MarketGrant};
use crate::policy::{Action, Denied, Resource};
use crate::work::SCOPES;
use crate::{Caller, Control, FieldError, Internal, Invalid};

impl Control {
    /// That the caller may let a bot work as this agent: nobody gives more than they have. An agent gives its own work; who
    /// may make keys for an agent could work as it just as well.
    pub(super) async fn may_lend(
        &self,
        caller: &Caller,
        market: Option<&MarketGrant>,
    ) -> Result<(), BotError> {
        let Some(MarketGrant { agent_id, .. }) = market else { return Ok(()) };
        let lacking = SCOPES.into_iter().find(|scope| !caller.has_scope(scope));
        if let Some(scope) = lacking {
            return Err(Denied::Scope { action: Action::BotsGrant.name(), scope }.into());
        }
        match caller.agent() {
            Some(own) if own == agent_id => Ok(()),
            Some(_) => Err(wrong("agent_id", "must be the agent that asks").into()),
            None => {
                let agent = accounts::agent(&mut self.store.reader().await?, agent_id).await?;
                if agent.is_none_or(|agent| agent.org_id != *caller.org()) {
                    return Err(wrong("agent_id", "must be an agent of the bot's org").into());
                }
                let agent = Resource::Agent(caller.org(), agent_id);
                Ok(self.permit(caller, Action::KeysCreate, agent).await?)
            }
        }
    }

    /// Writes down which jobs a bot is told of, in the transaction that makes or changes it.
    pub(super) async fn enlist(
        &self,
        tx: &mut Tx,
        bot: &Bot,
        market: Option<&MarketGrant>,
    ) -> Result<(), BotError> {
        market_bots::remove(tx, &bot.id).await.map_err(Internal::from)?;
        let Some(market) = market else { return Ok(()) };
        let listed = MarketBot {
            bot_id: bot.id.clone(),
            agent_id: market.agent_id.clone(),
            org_id: bot.org_id.clone(),
        };
        for kind in &market.artifact_types {
            if !market_bots::add(tx, &listed, kind).await.map_err(Internal::from)? {
                let message =
                    format!("the agent has another bot for `{kind}`: change that one, or delete it");
                return Err(wrong("artifact_types", &message).into());
            }
        }
        Ok(())
    }
}

fn wrong(field: &str, message: &str) -> Invalid {
    Invalid(vec![FieldError { field: format!("grants.market.{field}"), message: message.to_owned() }])
}
