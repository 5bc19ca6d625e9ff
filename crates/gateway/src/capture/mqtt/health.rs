//! How it stands between the gateway and its broker, for status, metrics and events.

use crate::metrics::Metrics;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum MqttState {
    /// No broker is configured.
    #[default]
    None,
    /// Not connected; another attempt follows.
    Down,
    Connected,
    /// Connected, but what the broker brings finds no room; it waits there.
    NoRoom,
}

/// A look at the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct MqttView {
    pub state: MqttState,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}

impl MqttView {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, MqttState::Connected | MqttState::NoRoom)
    }
}

/// Shared between the connection and the API.
#[derive(Debug)]
pub struct MqttHealth {
    view: watch::Sender<MqttView>,
    metrics: Arc<Metrics>,
}

impl MqttHealth {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { view: watch::Sender::default(), metrics }
    }

    pub fn view(&self) -> MqttView {
        self.view.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<MqttView> {
        self.view.subscribe()
    }

    pub(super) fn down(&self, error: Option<String>) {
        self.metrics.mqtt_connected(false);
        self.view.send_modify(|view| {
            view.state = MqttState::Down;
            view.last_error = error.or(view.last_error.take());
        });
    }

    pub(super) fn connected(&self) {
        self.metrics.mqtt_connected(true);
        self.view.send_replace(MqttView { state: MqttState::Connected, last_error: None });
    }

    /// Whether there is room; says whether that is news.
    pub(super) fn room(&self, is: bool) -> bool {
        let (before, after) = if is {
            (MqttState::NoRoom, MqttState::Connected)
        } else {
            (MqttState::Connected, MqttState::NoRoom)
        };
        self.view.send_if_modified(|view| {
            let news = view.state == before;
            if news {
                view.state = after;
            }
            news
        })
    }
}
