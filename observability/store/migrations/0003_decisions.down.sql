-- Decisions are given up here; the control plane's journal stays.
DROP TABLE IF EXISTS traffic_decisions;
