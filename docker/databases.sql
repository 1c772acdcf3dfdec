-- Runs once, when the volume of the database is new: a database each for MLflow, its accounts and Optuna.
\set mlflow_password `cat /run/secrets/mlflow_db_password`
\set optuna_password `cat /run/secrets/optuna_db_password`
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, optuna FROM PUBLIC; -- the trainer knows only Optuna's password
