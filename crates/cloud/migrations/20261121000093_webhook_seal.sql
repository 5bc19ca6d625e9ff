-- What webhooks are signed with, encrypted with receipts.seal_key where that is set, which is not in the database; else in
-- clear. In columns of their own: a program of before, running beside a new one, finds none and waits instead of signing
-- with what it cannot read.
alter table webhook alter column secret drop not null,
    add column sealed_secret bytea,
    add column sealed_old_secret bytea,
    add constraint webhook_secret_is_once check (num_nonnulls(secret, sealed_secret) = 1),
    drop constraint webhook_old_secret_ends,
    add constraint webhook_old_secret_ends
        check (num_nonnulls(old_secret, sealed_old_secret) = num_nonnulls(old_until));
comment on column webhook.secret is 'in clear, while receipts.seal_key is not set; else see sealed_secret';
