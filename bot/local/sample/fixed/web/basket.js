export function add(basket, item) {
  return [...basket, item];
}

export function last(basket) {
  return basket[basket.length - 1];
}

export async function load(url) {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`basket: the server answered ${response.status}`);
  }
  return response.json();
}
