-- A role for Grafana's panels: counts and times, no address, name or secret of a person. As the owner or a superuser:
--   psql -d lumbung -f grafana.sql
--   psql -d lumbung -c '\password lumbung_grafana'
-- Again after a restore; it may be run as often as one likes.

do $$ begin
    if not exists (select from pg_roles where rolname = 'lumbung_grafana') then
        create role lumbung_grafana login;
    end if;
end $$;
alter role lumbung_grafana set default_transaction_read_only = on;
alter role lumbung_grafana set statement_timeout = '15s';
alter role lumbung_grafana connection limit 5;

grant usage on schema public to lumbung_grafana;
grant select on programme, site, gateway_state, scan_day to lumbung_grafana;
grant select (gateway_id, code, site_id, created_at, revoked_at) on gateway to lumbung_grafana;
grant select (quarantine_id, gateway_id, stream, reason, received_at, replayed_at) on quarantine to lumbung_grafana;
grant select (user_id, role, is_active, is_verified, created_at) on app_user to lumbung_grafana;
grant select (session_id, user_id, created_at, last_seen_at) on user_session to lumbung_grafana;
grant select (delivery_id, kind, channel, state, attempts, created_at, ended_at) on delivery to lumbung_grafana;
