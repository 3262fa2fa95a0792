export function add(basket, item) {
  return [...basket, item];
}

export async function load(url) {
  const response = await fetch(url);
  return response.json();
}
