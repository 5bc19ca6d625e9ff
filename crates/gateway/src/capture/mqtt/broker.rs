//! One connection to the broker, from its beginning to its end.

use super::MqttLoop;
use super::keep::Promise;
use super::session::Session;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, Event, MqttOptions};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_SECONDS: u64 = 5;
/// Largest packet that the broker may send; it drops larger ones. What is over the limit of a payload but below this
/// is kept as an event.
const PACKET_BYTES: u32 = 1 << 20;
/// Requests of ours that may wait to be sent: an acknowledgement for every number there is.
const MOST_NUMBERS: usize = u16::MAX as usize;
/// The broker keeps the session, and what waits in it, for as long as it can.
const FOR_EVER: u32 = u32::MAX;

/// Why a connection ended, or was never made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("mqtt.password_file {path}: {error}")]
    Password { path: PathBuf, error: std::io::Error },
    #[error("mqtt.broker must be host:port")]
    Address,
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("the broker does not let this gateway read {filter}: {reason}")]
    Refused { filter: String, reason: String },
    #[error("the session cannot be remembered: {0}")]
    Session(#[from] std::io::Error),
    #[error("the connection takes nothing more")]
    Stuck,
}

impl From<ClientError> for Lost {
    fn from(_: ClientError) -> Self {
        Self::Stuck
    }
}

impl MqttLoop {
    /// Connects and listens; returns only with the reason why that is over.
    pub(super) async fn connection(&mut self) -> Result<Infallible, Lost> {
        // One of each for every connection: nothing of an old one, above all no acknowledgement, can get into the next.
        let (client, mut events) = AsyncClient::new(self.options().await?, MOST_NUMBERS);
        let window = usize::from(self.config.window);
        let mut kept = FuturesOrdered::new();
        loop {
            let event = {
                // Not begun anew when a message is kept meanwhile: a half-written packet would be lost.
                let next = events.poll();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        // Not read while there is enough in hand: what the broker sends above the receive maximum
                        // (Mosquitto does, of what waited for a long time) stays in the socket.
                        event = &mut next, if kept.len() < window => break event?,
                        Some(publish) = kept.next() => client.try_ack(&publish)?,
                    }
                }
            };
            match event {
                Event::Incoming(Packet::ConnAck(answer)) => self.begin(&answer, &client).await?,
                Event::Incoming(Packet::SubAck(answer)) => self.subscribed(&answer)?,
                Event::Incoming(Packet::Publish(publish)) => {
                    let promise = promise(&publish, &self.session);
                    let (keeper, maps) = (Arc::clone(&self.keeper), Arc::clone(&self.maps));
                    kept.push_back(async move {
                        keeper.keep(&maps, &publish.topic, &publish.payload, promise).await;
                        publish
                    });
                }
                _ => {}
            }
        }
    }

    async fn options(&self) -> Result<MqttOptions, Lost> {
        let config = &self.config;
        let client_id = if config.client_id.is_empty() { &self.session.client_id } else { &config.client_id };
        let (host, port) = config.address().ok_or(Lost::Address)?;
        let mut options = MqttOptions::new(client_id, host, port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_connection_timeout(CONNECT_SECONDS)
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_session_expiry_interval(Some(FOR_EVER))
            .set_receive_maximum(Some(config.window))
            .set_max_packet_size(Some(PACKET_BYTES))
            .set_manual_acks(true);
        if !config.username.is_empty() {
            let path = &config.password_file;
            let password = tokio::fs::read_to_string(path).await;
            let password = password.map_err(|error| Lost::Password { path: path.clone(), error })?;
            options.set_credentials(&config.username, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }

    /// Agrees with the broker on the session and asks for everything that is mapped, and for nothing else.
    async fn begin(&mut self, answer: &ConnAck, client: &AsyncClient) -> Result<(), Lost> {
        let filters = self.maps.filters();
        let mut session = self.session.clone();
        if !answer.session_present {
            session.renew();
        }
        let dropped: Vec<_> = session.filters.iter().filter(|old| !filters.contains(old)).cloned().collect();
        session.filters.clone_from(&filters);
        if session != self.session {
            // Before anything of it can arrive: a message is remembered under its session's name.
            let (dir, fresh) = (self.data_dir.clone(), session.clone());
            let kept = tokio::task::spawn_blocking(move || fresh.keep(&dir)).await;
            kept.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
            self.session = session;
        }
        for filter in dropped {
            client.try_unsubscribe(filter)?;
        }
        // Asked for each time: an earlier request may not have arrived. Nothing is lost by it, and no old (retained)
        // value is told again as if it were new.
        let ask = |path: &String| Filter {
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(path.as_str(), QoS::AtLeastOnce)
        };
        client.try_subscribe_many(filters.iter().map(ask))?;
        Ok(())
    }

    fn subscribed(&self, answer: &SubAck) -> Result<(), Lost> {
        for (filter, reason) in self.maps.filters().into_iter().zip(&answer.return_codes) {
            if !matches!(reason, SubscribeReasonCode::Success(_)) {
                return Err(Lost::Refused { filter, reason: format!("{reason:?}") });
            }
        }
        tracing::info!(broker = %self.config.broker, "connected to the MQTT broker");
        self.health.connected();
        Ok(())
    }
}

/// What the broker was promised: nothing for a message without QoS.
fn promise(publish: &Publish, session: &Session) -> Option<Promise> {
    (publish.qos != QoS::AtMostOnce).then(|| Promise {
        place: publish.pkid,
        digest: session.digest(publish.pkid, &publish.topic, &publish.payload),
        again: publish.dup,
    })
}
