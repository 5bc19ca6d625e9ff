//! People's accounts.

use super::who::{duration, until};
use super::{say, say_json};
use crate::audit::By;
use crate::config::Config;
use crate::files::Files;
use crate::identity::grants::{self, Duty, Place};
use crate::identity::{Role, bans, roster, second_factor};
use crate::privacy::leave;
use crate::state::State;
use chrono::SecondsFormat;
use clap::Subcommand;
use sqlx::PgPool;
use std::io::BufRead;

#[derive(Subcommand)]
pub(super) enum User {
    /// Make an account; a password that is drawn here is shown once
    #[command(
        after_help = "Examples:\n  lumbung-cloud user add --email admin@example.com --role admin\n  lumbung-cloud user add --email budi@example.com --password-stdin < password"
    )]
    Add {
        #[arg(long)]
        email: String,
        /// Else what stands before the @
        #[arg(long)]
        username: Option<String>,
        #[arg(long, default_value = "user")]
        role: Role,
        /// Read the password from the first line of the standard input
        #[arg(long)]
        password_stdin: bool,
        #[arg(long)]
        json: bool,
    },
    /// List accounts: id, role, state, user name, e-mail address
    List,
    /// Give an account another role: user, volunteer, ambassador or admin
    #[command(after_help = "Example:\n  lumbung-cloud user role siti@example.com volunteer")]
    Role { email: String, role: Role },
    /// Give an account a duty at a place: an operator looks after its gateways, an officer sees what goes on
    #[command(
        after_help = "Examples:\n  lumbung-cloud user grant siti@example.com operator --programme MBG\n  lumbung-cloud user grant budi@example.com officer --site DAPUR-MENTENG"
    )]
    Grant {
        email: String,
        role: Duty,
        /// The code of a programme: all its sites, also those to come
        #[arg(long, required_unless_present = "site", conflicts_with = "site")]
        programme: Option<String>,
        /// The code of one site
        #[arg(long)]
        site: Option<String>,
    },
    /// Take a duty away
    #[command(
        after_help = "Example:\n  lumbung-cloud user ungrant budi@example.com officer --site DAPUR-MENTENG"
    )]
    Ungrant {
        email: String,
        role: Duty,
        #[arg(long, required_unless_present = "site", conflicts_with = "site")]
        programme: Option<String>,
        #[arg(long)]
        site: Option<String>,
    },
    /// List the duties of an account: number, role, place, since
    Grants { email: String },
    /// Shut an account: it is signed out everywhere within a second
    #[command(
        after_help = "Examples:\n  lumbung-cloud user ban budi@example.com --reason 'Spam' --until 7d\n  lumbung-cloud user ban budi@example.com"
    )]
    Ban {
        email: String,
        /// Told to the person when they try to sign in
        #[arg(long)]
        reason: Option<String>,
        /// How long, such as 7d; for good without
        #[arg(long, value_parser = duration)]
        until: Option<std::time::Duration>,
    },
    /// Let an account in again
    Unban { email: String },
    /// Take the second factor from an account whose person lost it: they are signed out everywhere and told
    #[command(after_help = "Example:\n  lumbung-cloud user totp-reset siti@example.com")]
    TotpReset { email: String },
    /// List where an account is signed in: id, since, last seen, program
    Sessions { email: String },
    /// Erase a person's data and end their account for good, by its number
    #[command(
        after_help = "For somebody who cannot sign in, once it is sure who asks; and after a restore, for everybody who left since the backup: the log says `account erased user_id=…`.\n\nExample:\n  lumbung-cloud user erase 17 --yes"
    )]
    Erase {
        user_id: i64,
        /// It cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
    /// End one session
    Revoke { session_id: i64 },
}

impl User {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { email, username, role, password_stdin, json } => {
                let password = if password_stdin { Some(first_line()?) } else { None };
                let added =
                    roster::add(pool, &email, username.as_deref(), role, password, &By::command()).await?;
                if json {
                    return say_json(&added);
                }
                say(format_args!("{} {} with the address {email}", added.role.word(), added.username))?;
                added.password.map_or(Ok(()), |password| say(format_args!("password {password}")))
            }
            Self::List => {
                for user in roster::list(pool).await? {
                    let state = if user.is_active { "active" } else { "banned" };
                    say(format_args!(
                        "{}\t{}\t{state}\t{}\t{}",
                        user.user_id,
                        user.role.word(),
                        user.username,
                        user.email
                    ))?;
                }
                Ok(())
            }
            Self::Role { email, role } => {
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                let was = roster::set_role(&mut tx, user_id, role, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} is {} now, {} before", role.word(), was.word()))
            }
            Self::Grant { email, role, programme, site } => {
                let place = Place::parse(programme, site)?;
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                let id = grants::grant(&mut tx, user_id, role, &place, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} is {} of {} (grant {id})", role.word(), place.code()))
            }
            Self::Ungrant { email, role, programme, site } => {
                let place = Place::parse(programme, site)?;
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                let id = grants::find(&mut tx, user_id, role, &place).await?;
                grants::withdraw(&mut tx, user_id, id, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} is no {} of {} any more", role.word(), place.code()))
            }
            Self::Grants { email } => {
                let mut conn = pool.acquire().await?;
                let user_id = roster::named(&mut conn, &email).await?;
                for grant in grants::list(&mut conn, user_id).await? {
                    let place = grant.programme.or(grant.site).unwrap_or_default();
                    let since = grant.granted_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    say(format_args!("{}\t{}\t{place}\t{since}", grant.grant_id, grant.role.word()))?;
                }
                Ok(())
            }
            Self::Ban { email, reason, until: long } => {
                let expires_at = long.map(until).transpose()?;
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                bans::ban(&mut tx, user_id, reason.as_deref(), expires_at, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} banned"))
            }
            Self::Unban { email } => {
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                bans::unban(&mut tx, user_id, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} may sign in again"))
            }
            Self::TotpReset { email } => {
                let mut tx = pool.begin().await?;
                let user_id = roster::named(&mut tx, &email).await?;
                second_factor::reset(&mut tx, user_id, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("{email} signs in without a second factor and may enrol another"))
            }
            Self::Sessions { email } => {
                for session in roster::sessions(pool, &config.people.token_secret, &email).await? {
                    let time =
                        |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    let (since, seen) = (time(session.created_at), time(session.last_seen_at));
                    let program = session.user_agent.unwrap_or_default();
                    say(format_args!("{}\t{since}\t{seen}\t{program}", session.session_id))?;
                }
                Ok(())
            }
            Self::Erase { user_id, yes: _ } => {
                let state = State::alone(config, pool);
                let receipt = leave::erase(&state, &Files::open(&state)?, user_id, &By::command()).await?;
                say(format_args!(
                    "account {user_id} erased with {} files (request {})",
                    receipt.files, receipt.privacy_request_id
                ))
            }
            Self::Revoke { session_id } => {
                roster::revoke(pool, session_id, &By::command()).await?;
                say(format_args!("session {session_id} ended"))
            }
        }
    }
}

fn first_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
