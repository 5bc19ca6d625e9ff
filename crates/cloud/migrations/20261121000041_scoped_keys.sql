-- Access keys become service accounts: several scopes, an end, when last used. A key of before reads as it did.

alter table access_key drop constraint access_key_scope_known;
alter table access_key alter column scope type text[] using array[scope];
alter table access_key rename column scope to scopes;
alter table access_key
    add constraint access_key_scopes_known
        check (scopes <@ array['read', 'metrics', 'places:write', 'gateways:enrol'] and cardinality(scopes) > 0),
    add column expires_at timestamptz,
    -- To the minute.
    add column last_used_at timestamptz,
    -- Null: from the command line, or by somebody who is gone.
    add column made_by bigint constraint access_key_maker_fk references app_user on delete set null;
