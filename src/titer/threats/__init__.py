"""What an attacker may change and wants: budgets (norm balls), rules of the domain, goals."""
