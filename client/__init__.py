"""What users import: a sans-I/O protocol with a blocking and an asyncio face."""
