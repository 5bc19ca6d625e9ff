-- Who did what, and when: written once, in the transaction of what was done. docs/decisions/ tells why it is
-- laid out so; the chain of hashes stands apart from the entries because nobody may wait for it.

create table audit_entry (
    audit_id    bigint generated always as identity constraint audit_entry_pk primary key,
    happened_at timestamptz not null,
    logged_at   timestamptz not null default clock_timestamp(),
    request_id  text,
    actor_kind  text not null,
    actor_id    text,
    -- Cut: 203.0.113.0/24, 2001:db8:1::/48.
    address     text,
    user_agent  text,
    -- The word of OWASP's logging vocabulary where it has one.
    action      text not null,
    object_kind text,
    object_id   text,
    outcome     text not null,
    reason      text,
    -- Without passwords, tokens and addresses of people: the program takes them out before this.
    detail      jsonb not null default '{}',
    version     text not null,
    constraint audit_entry_actor_known
        check (actor_kind in ('person', 'gateway', 'key', 'command', 'itself', 'nobody')),
    constraint audit_entry_outcome_known check (outcome in ('success', 'refused', 'failed')),
    constraint audit_entry_object_whole check ((object_kind is null) = (object_id is null)),
    constraint audit_entry_lengths check (
        char_length(request_id) <= 64 and char_length(actor_id) <= 128 and char_length(user_agent) <= 128
        and char_length(object_id) <= 128 and char_length(reason) <= 200)
);
create index audit_entry_actor on audit_entry (actor_kind, actor_id, audit_id);
create index audit_entry_object on audit_entry (object_kind, object_id, audit_id);
create index audit_entry_action on audit_entry (action, audit_id);
create index audit_entry_logged on audit_entry (logged_at);

-- Entries that are not in the chain yet. A transaction that is slow to commit shows up here late, with a number
-- lower than others': the chain has its own order, so nothing is skipped and nobody waits.
create table audit_waiting (
    audit_id bigint not null constraint audit_waiting_pk primary key
);

-- The chain: hash = SHA-256(previous_hash || the entry's canonical text). Numbers have no gaps.
create table audit_seal (
    number        bigint not null constraint audit_seal_pk primary key,
    audit_id      bigint not null constraint audit_seal_entry_key unique,
    previous_hash bytea not null,
    hash          bytea not null,
    sealed_at     timestamptz not null default clock_timestamp(),
    constraint audit_seal_number_counts check (number >= 1),
    constraint audit_seal_hash_length check (octet_length(previous_hash) = 32 and octet_length(hash) = 32)
);

-- Where the chain begins after its oldest entries were given up: the number and hash of the last one of them.
create table audit_anchor (
    number    bigint not null constraint audit_anchor_pk primary key,
    hash      bytea not null,
    -- The youngest entry that went.
    logged_at timestamptz not null,
    made_at   timestamptz not null default clock_timestamp(),
    constraint audit_anchor_hash_length check (octet_length(hash) = 32)
);

-- What repeats too often to be told one by one: counted here for its minute, then told once.
create table audit_tally (
    minute timestamptz not null,
    action text not null,
    actor_id text not null,
    count  bigint not null,
    constraint audit_tally_pk primary key (minute, action, actor_id)
);

create function audit_queue() returns trigger language plpgsql as $$
begin
    insert into audit_waiting (audit_id) values (new.audit_id);
    return null;
end $$;

-- The one way out, for what is a year old and older: an anchor that repeats a seal, and then the entries and the
-- seals up to it. The anchor must be right, so the chain that is left can still be verified.
create function audit_keep() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_table_name = 'audit_entry' then
        if old.logged_at < now() - interval '365 days' and exists (
            select from audit_seal s where s.audit_id = old.audit_id
                and s.number <= (select max(number) from audit_anchor)) then
            return old;
        end if;
    end if;
    if tg_op = 'DELETE' and tg_table_name = 'audit_seal' then
        if old.number <= (select max(number) from audit_anchor)
            and not exists (select from audit_entry e where e.audit_id = old.audit_id) then
            return old;
        end if;
    end if;
    if tg_op = 'INSERT' then
        if exists (select from audit_seal s join audit_entry e using (audit_id)
            where s.number = new.number and s.hash = new.hash and e.logged_at = new.logged_at
                and e.logged_at < now() - interval '365 days') then
            return new;
        end if;
        raise exception 'an audit anchor must repeat a seal that is at least a year old'
            using errcode = 'insufficient_privilege';
    end if;
    raise exception 'the audit log is only ever added to: % on % refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end $$;

create trigger audit_entry_queue after insert on audit_entry for each row execute function audit_queue();
create trigger audit_entry_keep before update or delete on audit_entry
    for each row execute function audit_keep();
create trigger audit_entry_keep_all before truncate on audit_entry
    for each statement execute function audit_keep();
create trigger audit_seal_keep before update or delete on audit_seal
    for each row execute function audit_keep();
create trigger audit_seal_keep_all before truncate on audit_seal
    for each statement execute function audit_keep();
create trigger audit_anchor_keep before insert or update or delete on audit_anchor
    for each row execute function audit_keep();
create trigger audit_anchor_keep_all before truncate on audit_anchor
    for each statement execute function audit_keep();
-- Also for sessions that replay a replica's changes, where ordinary triggers rest.
alter table audit_entry enable always trigger audit_entry_queue;
alter table audit_entry enable always trigger audit_entry_keep;
alter table audit_entry enable always trigger audit_entry_keep_all;
alter table audit_seal enable always trigger audit_seal_keep;
alter table audit_seal enable always trigger audit_seal_keep_all;
alter table audit_anchor enable always trigger audit_anchor_keep;
alter table audit_anchor enable always trigger audit_anchor_keep_all;
