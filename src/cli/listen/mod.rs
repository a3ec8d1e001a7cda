//! `fanfare listen`: a Pusher client for a terminal. Subscribes, prints events, and comes back after a disconnect by the
//! rules that every client follows (protocol §1.5).

mod connection;
mod error;
mod message;
mod wish;

use std::collections::HashSet;
use std::fmt;

use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::protocol::SocketId;

use super::signals::Signals;
use super::target::{Target, TargetArgs};
use super::{CliError, output};

use connection::Connection;
pub(super) use error::ListenError;
use message::Message;
use wish::{Wish, WishArgs};

const EXAMPLES: &str = r#"Examples:
  fanfare listen my-channel
  fanfare listen room-1 private-room-2 cache-scores
  fanfare listen presence-room --user-id 7 --user-info '{"name":"Ann"}'
  fanfare listen --sign-in 7 --watch 8,9
  fanfare listen my-channel --json --count 1

Signs for private and presence channels itself, with the app's secret.
Events go to standard output, one a line; what happens to the connection goes
to standard error. Comes back after a disconnect unless the server forbids it."#;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    wish: WishArgs,
    /// Print each event as the JSON message that came.
    #[arg(long)]
    json: bool,
    /// Print the protocol's own messages, too: confirmations, errors, counts, pongs.
    #[arg(long)]
    all: bool,
    /// End after this many events; the protocol's own messages do not count.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Fail at a disconnect instead of coming back.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut signals = Signals::catch()?;
        let stop = CancellationToken::new();
        let printer = Printer { json: self.json, all: self.all, remaining: self.count };
        let (target, wish) = (self.target.resolve()?, self.wish.wish()?);
        let listener = Listener { target, wish, printer, once: self.once, stop: stop.clone() };
        tokio::spawn(async move {
            signals.next().await;
            stop.cancel();
        });
        listener.run().await
    }
}

/// Everything that outlives one connection.
struct Listener {
    target: Target,
    wish: Wish,
    printer: Printer,
    once: bool,
    stop: CancellationToken,
}

impl Listener {
    /// Connects, listens, and does so again after each disconnect.
    async fn run(mut self) -> Result<(), CliError> {
        let stop = self.stop.clone();
        let mut greeted_once = false;
        let mut last_error = String::new();
        loop {
            let attempt = tokio::select! {
                attempt = Connection::open(&self.target) => attempt,
                () = stop.cancelled() => return Ok(()),
            };
            let greeted = attempt.is_ok();
            greeted_once |= greeted;
            let end = match attempt {
                Ok((connection, socket_id)) => self.converse(connection, socket_id).await,
                Err(error) => Err(error.into()),
            };
            let error = match end {
                Err(CliError::Listen(error)) => error,
                end => return end,
            };
            let pause = match error.pause(greeted, greeted_once) {
                Some(pause) if !self.once => pause,
                _ => return Err(error.into()),
            };
            // Once is enough while a server is down.
            let error = error.to_string();
            if greeted || error != last_error {
                note(format_args!("{error}; connecting again"));
            }
            last_error = error;
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Subscribes and prints, until enough events came or the user wants to stop.
    async fn converse(&mut self, mut connection: Connection, socket_id: SocketId) -> Result<(), CliError> {
        note(format_args!("connected to {} as {socket_id}", self.target.url));
        for message in self.wish.messages(&self.target, socket_id) {
            connection.send(message).await?;
        }
        let mut progress = Progress::default();
        while self.printer.remaining != Some(0) {
            let text = tokio::select! {
                text = connection.next() => text?,
                () = self.stop.cancelled() => break,
            };
            self.hear(&text, &mut progress)?;
        }
        connection.close().await;
        Ok(())
    }

    /// Prints one message, and says what it means for the connection.
    fn hear(&mut self, text: &str, progress: &mut Progress) -> Result<(), CliError> {
        let Some(message) = Message::parse(text) else {
            note(format_args!("the server sent something that is no message: {}", output::on_one_line(text)));
            return Ok(());
        };
        self.printer.print(&message, text)?;
        match &*message.event {
            "pusher_internal:subscription_succeeded" => note(format_args!("{}", message.subscribed())),
            "pusher:cache_miss" => note(format_args!("{} has no event cached", message.channel())),
            "pusher:signin_success" => {
                progress.signed_in = true;
                note(format_args!("signed in as {}", self.wish.user().unwrap_or_default()));
            }
            // Requests are handled in order, and signing in was the first one.
            "pusher:error" if self.wish.user().is_some() && !progress.signed_in => {
                return Err(ListenError::SignInRefused(message.error()).into());
            }
            "pusher:error" => note(format_args!("the server says: {}", message.error())),
            "pusher:subscription_error" => {
                progress.refused.insert(message.channel());
                if self.wish.user().is_none() && self.wish.is_among(&progress.refused) {
                    return Err(ListenError::AllRefused.into());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where the conversation of one connection stands.
#[derive(Default)]
struct Progress {
    signed_in: bool,
    refused: HashSet<String>,
}

/// Decides what is shown, and how.
struct Printer {
    json: bool,
    all: bool,
    /// Events still to come before the end, if there is one.
    remaining: Option<u64>,
}

impl Printer {
    fn print(&mut self, message: &Message<'_>, text: &str) -> Result<(), CliError> {
        let is_event = !message.is_bookkeeping();
        if is_event || self.all {
            // In JSON a line can only break between tokens, where a space does as well.
            let raw = || text.replace(['\r', '\n'], " ");
            output::line(if self.json { raw() } else { message.line(OffsetDateTime::now_utc()) })?;
        }
        if is_event {
            self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(1));
        }
        Ok(())
    }
}

/// Tells about the connection, beside the events.
fn note(text: fmt::Arguments<'_>) {
    output::remark(format_args!("fanfare: {text}"));
}
