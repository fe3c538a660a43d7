SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.promotion_ledger_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'promotion_ledger is append-only: % is refused', TG_OP;
END $$;
CREATE TABLE public.promotion_ledger (
    seq bigint NOT NULL,
    decision_id text NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    model_name text NOT NULL,
    verb text NOT NULL,
    version text NOT NULL,
    previous_champion text,
    gates jsonb NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    dataset_id text NOT NULL,
    golden_hash text NOT NULL,
    code_hash text NOT NULL,
    dag_run_id text NOT NULL,
    job_id text NOT NULL
);
ALTER TABLE public.promotion_ledger ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.promotion_ledger_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.upload_batches (
    batch_id text NOT NULL,
    state text NOT NULL,
    because text NOT NULL,
    reason text NOT NULL,
    run_id text NOT NULL,
    files integer NOT NULL,
    bytes bigint NOT NULL,
    claimed_at timestamp with time zone,
    changed_at timestamp with time zone,
    moves integer NOT NULL,
    tells integer NOT NULL,
    failures integer NOT NULL
);
INSERT INTO public.promotion_ledger OVERRIDING SYSTEM VALUE VALUES (1, '9691fde53bd14883', '2026-11-26 19:51:12.717979+00', 'bert-classifier', 'promote', '1', NULL, '[{"name": "accuracy_floor", "value": 1.0, "passed": true, "threshold": 0.7, "explanation": "36 of 36 golden rows are right: 1.000, at least 0.700 is asked"}, {"name": "class_recall", "value": 1.0, "passed": true, "threshold": 0.5, "explanation": "all 3 classes with at least 10 golden rows are recalled well enough; closest is ''card'' at 1.000 (0.500 is asked)"}]', 'dag:bert_model_training_pipeline', 'Promoted: 36 of 36 golden rows are right: 1.000, at least 0.700 is asked; there is no champion to compare with.', '072a17134f604e46', 'e0cc2610f4f3b345268252defe53ca1b2fe8a08fe488cfe29b8640e49d2d17ba', 'sha256:8d390d380e77fa3716eb3209a6fca94c337105e109c053990fe415c90c4a68cf', 'dataset_triggered__2026-10-18T00:00:00+00:00', '9f4dcba477c9becd');
INSERT INTO public.promotion_ledger OVERRIDING SYSTEM VALUE VALUES (2, '8abbcefb82456f94', '2026-11-26 19:51:59.844054+00', 'bert-classifier', 'promote', '2', '1', '[{"name": "accuracy_floor", "value": 1.0, "passed": true, "threshold": 0.7, "explanation": "36 of 36 golden rows are right: 1.000, at least 0.700 is asked"}, {"name": "non_inferiority", "value": 0.0, "passed": true, "threshold": -0.05555555555555555, "explanation": "against the champion 0 rows are fixed and 0 broken: accuracy +0.000, between -0.056 and +0.056 (paired bootstrap, one-sided 95% each): 36 rows cannot show that it is worse; a challenger is kept out only when they do"}, {"name": "class_recall", "value": 1.0, "passed": true, "threshold": 0.5, "explanation": "all 3 classes with at least 10 golden rows are recalled well enough; closest is ''card'' at 1.000 (0.500 is asked)"}]', 'dag:bert_model_training_pipeline', 'Promoted: 36 of 36 golden rows are right: 1.000, at least 0.700 is asked; against the champion 0 rows are fixed and 0 broken: accuracy +0.000, between -0.056 and +0.056 (paired bootstrap, one-sided 95% each): 36 rows cannot show that it is worse; a challenger is kept out only when they do.', 'b59c29f612f36a28', 'e0cc2610f4f3b345268252defe53ca1b2fe8a08fe488cfe29b8640e49d2d17ba', 'sha256:8d390d380e77fa3716eb3209a6fca94c337105e109c053990fe415c90c4a68cf', 'dataset_triggered__2026-10-25T00:00:00+00:00', 'e15df585d8a9a02e');
INSERT INTO public.promotion_ledger OVERRIDING SYSTEM VALUE VALUES (3, '5c92a60f992d1d12', '2026-11-26 19:52:57.286152+00', 'bert-classifier', 'reject', '3', '2', '[{"name": "accuracy_floor", "value": 0.4444444444444444, "passed": false, "threshold": 0.7, "explanation": "16 of 36 golden rows are right: 0.444, at least 0.700 is asked"}, {"name": "non_inferiority", "value": -0.5555555555555556, "passed": false, "threshold": -0.16666666666666669, "explanation": "against the champion 0 rows are fixed and 20 broken: accuracy -0.556, between -0.667 and -0.389 (paired bootstrap, one-sided 95% each): worse, and perhaps by more than the margin of 0.020"}, {"name": "class_recall", "value": 0.16666666666666666, "passed": false, "threshold": 0.5, "explanation": "2 of 3 classes with at least 10 golden rows fail; worst is ''refund'' at 0.167 (0.500 is asked); also failing: delivery"}]', 'dag:bert_model_training_pipeline', 'Rejected: accuracy_floor failed, 16 of 36 golden rows are right: 0.444, at least 0.700 is asked; non_inferiority failed, against the champion 0 rows are fixed and 20 broken: accuracy -0.556, between -0.667 and -0.389 (paired bootstrap, one-sided 95% each): worse, and perhaps by more than the margin of 0.020; class_recall failed, 2 of 3 classes with at least 10 golden rows fail; worst is ''refund'' at 0.167 (0.500 is asked); also failing: delivery.', 'eaa737ba4f11d208', 'e0cc2610f4f3b345268252defe53ca1b2fe8a08fe488cfe29b8640e49d2d17ba', 'sha256:8d390d380e77fa3716eb3209a6fca94c337105e109c053990fe415c90c4a68cf', 'dataset_triggered__2026-11-01T00:00:00+00:00', '4046709a2a2cdbfb');
INSERT INTO public.upload_batches VALUES ('20261004T000000-00b143df', 'used', '', 'Promoted: 36 of 36 golden rows are right: 1.000, at least 0.700 is asked; there is no champion to compare with.', 'dataset_triggered__2026-10-18T00:00:00+00:00', 1, 2344, '2026-11-26 19:50:24.495384+00', '2026-11-26 19:51:14.58091+00', 4, 0, 0);
INSERT INTO public.upload_batches VALUES ('20261011T000000-cb127ef0', 'used', '', 'Promoted: 36 of 36 golden rows are right: 1.000, at least 0.700 is asked; there is no champion to compare with.', 'dataset_triggered__2026-10-18T00:00:00+00:00', 1, 7127, '2026-11-26 19:50:30.021058+00', '2026-11-26 19:51:14.758384+00', 2, 0, 0);
INSERT INTO public.upload_batches VALUES ('20261018T000000-eded2b85', 'used', '', 'Promoted: 36 of 36 golden rows are right: 1.000, at least 0.700 is asked; against the champion 0 rows are fixed and 0 broken: accuracy +0.000, between -0.056 and +0.056 (paired bootstrap, one-sided 95% each): 36 rows cannot show that it is worse; a challenger is kept out only when they do.', 'dataset_triggered__2026-10-25T00:00:00+00:00', 1, 3586, '2026-11-26 19:51:15.590573+00', '2026-11-26 19:52:03.177652+00', 2, 0, 0);
INSERT INTO public.upload_batches VALUES ('20261025T000000-19be5a5b', 'set aside', '', 'Rejected: accuracy_floor failed, 16 of 36 golden rows are right: 0.444, at least 0.700 is asked; non_inferiority failed, against the champion 0 rows are fixed and 20 broken: accuracy -0.556, between -0.667 and -0.389 (paired bootstrap, one-sided 95% each): worse, and perhaps by more than the margin of 0.020; class_recall failed, 2 of 3 classes with at least 10 golden rows fail; worst is ''refund'' at 0.167 (0.500 is asked); also failing: delivery.', 'dataset_triggered__2026-11-01T00:00:00+00:00', 1, 11664, '2026-11-26 19:52:03.967792+00', '2026-11-26 19:52:59.487693+00', 2, 0, 0);
SELECT pg_catalog.setval('public.promotion_ledger_seq_seq', 3, true);
ALTER TABLE ONLY public.promotion_ledger
    ADD CONSTRAINT promotion_ledger_decision_id_key UNIQUE (decision_id);
ALTER TABLE ONLY public.promotion_ledger
    ADD CONSTRAINT promotion_ledger_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.upload_batches
    ADD CONSTRAINT upload_batches_pkey PRIMARY KEY (batch_id);
CREATE INDEX ix_promotion_ledger_model_name ON public.promotion_ledger USING btree (model_name);
CREATE TRIGGER promotion_ledger_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.promotion_ledger FOR EACH STATEMENT EXECUTE FUNCTION public.promotion_ledger_refuse();
