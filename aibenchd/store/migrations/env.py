"""What alembic runs to reach the database: always with the connection that :func:`upgrade` hands it."""

from alembic import context

connection = context.config.attributes["connection"]
connection.connection.driver_connection.isolation_level = None  # so that the whole upgrade is one transaction
connection.exec_driver_sql("BEGIN EXCLUSIVE")
context.configure(connection=connection, transactional_ddl=True)
context.run_migrations()
connection.exec_driver_sql("COMMIT")
